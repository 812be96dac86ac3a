#include "roles/topology.hpp"

namespace troupe {

std::vector<std::string> instances_of(const NodeSection& node) {
  std::vector<std::string> names;
  for (int64_t i = 0; i < node.count; ++i) names.push_back(*node.name + "/" + std::to_string(i));
  return names;
}

std::vector<std::string> instances_of_role(const Topology& topology, std::string_view role) {
  std::vector<std::string> names;
  for (const NodeSection& node : topology.nodes) {
    if (role_of(node) != role) continue;
    for (std::string& name : instances_of(node)) names.push_back(std::move(name));
  }
  return names;
}

const NodeSection& node_of(const Topology& topology, const std::string& instance) {
  for (const NodeSection& node : topology.nodes)
    for (const std::string& name : instances_of(node))
      if (name == instance) return node;
  throw std::invalid_argument("the topology has no node " + instance);
}

Topology topology_from(const Json& json, const JsonPath& where) {
  return from_json<Topology>(json, where);
}

Topology read_run_topology(const std::filesystem::path& run_folder) {
  const JsonFile file = read_config_file(run_folder / "topology.json");
  return topology_from(file.value, file.where);
}

}  // namespace troupe
