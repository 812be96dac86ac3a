#include "roles/run_file.hpp"

#include <fstream>

namespace troupe {

RunFile read_run_file(const std::filesystem::path& run_folder) {
  const JsonFile file = read_config_file(run_folder / "run.json");
  return from_json<RunFile>(file.value, file.where);
}

std::string file_name_of(std::string instance) {
  for (char& c : instance)
    if (c == '/') c = '-';
  return instance;
}

std::filesystem::path secret_key_file(const RunFile& run, const std::string& instance) {
  return std::filesystem::path(run.sockets) / (file_name_of(instance) + ".key");
}

NodeOptions node_options(const RunFile& run, const std::string& instance, uint64_t incarnation, uint64_t epoch,
                         bool drives) {
  const auto own = run.endpoints.find(instance);
  if (own == run.endpoints.end() && instance != kStatusNode)
    throw std::invalid_argument("run " + run.name + " has no node " + instance);
  NodeOptions options;
  options.node = instance;
  options.incarnation = incarnation;
  options.run = run.id;
  options.epoch = epoch;
  options.drives = drives;
  if (own != run.endpoints.end()) options.endpoint = own->second;
  if (const auto listen = run.listen.find(instance); listen != run.listen.end()) options.endpoint = listen->second;
  options.supervisor = instance == "supervisor" || instance == kStatusNode ? "" : "supervisor";
  AllowList allowed;
  for (const auto& [node, endpoint] : run.endpoints) {
    const auto key = run.public_keys.find(node);
    if (key != run.public_keys.end()) allowed[key->second] = node;
    if (node != instance) options.peers[node] = {endpoint, key == run.public_keys.end() ? "" : key->second};
  }
  if (allowed.empty()) return options;
  options.keys.public_key = run.public_keys.at(instance);
  const std::filesystem::path secret = secret_key_file(run, instance);
  if (!(std::ifstream(secret) >> options.keys.secret_key)) throw std::runtime_error("cannot read " + secret.string());
  options.transport = Transport::create(std::move(allowed));
  return options;
}

}  // namespace troupe
