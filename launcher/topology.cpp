#include "launcher/topology.hpp"

#include <algorithm>
#include <cstdio>

#include "core/io/disk.hpp"
#include "launcher/thread_plan.hpp"
#include "launcher/topology_check.hpp"

namespace troupe {
namespace {

// The struct as far as it can be read; what could not goes to `faults`.
Topology read_sections(const Json& json, TopologyFaults& faults) {
  Topology topology;
  detail::Faults unread;
  detail::read(topology, json, faults.where, unread);
  try {
    unread.throw_if_any();
  } catch (const ConfigErrors& errors) {
    faults.lines = errors.errors();
  }
  return topology;
}

bool check_algorithm(const Topology& topology, const Vocabulary& words, TopologyFaults& faults) {
  try {
    return words.check_algorithm(topology.algorithm, faults.where.key("algorithm"));
  } catch (const ConfigErrors& errors) {
    faults.lines.insert(faults.lines.end(), errors.errors().begin(), errors.errors().end());
  } catch (const std::invalid_argument& error) {
    faults.lines.push_back(error.what());
  }
  return false;
}

std::string padded(std::string text, std::size_t width) {
  text.resize(std::max(text.size(), width), ' ');
  return text;
}

JsonFile read_overridden(const std::filesystem::path& file, const std::vector<std::string>& overrides) {
  JsonFile document = read_config_file(file);
  for (const std::string& assignment : overrides) set_by_path(document.value, assignment, NewKeys::kAdd);
  return document;
}

}  // namespace

Topology read_unchecked(const std::filesystem::path& file, const std::vector<std::string>& overrides) {
  JsonFile document = read_overridden(file, overrides);
  TopologyFaults ignored{document.where, {}};
  return read_sections(document.value, ignored);
}

Topology load_topology(const std::filesystem::path& file, const LoadOptions& options, const Vocabulary& words) {
  JsonFile document = read_overridden(file, options.overrides);
  TopologyFaults faults{document.where, {}};
  Topology topology = read_sections(document.value, faults);
  const bool nodes_read = faults.lines.empty();
  check_run(topology.run, faults);
  const std::filesystem::path folder = options.folder.empty() ? "." : options.folder;
  check_files(topology, std::filesystem::absolute(folder), faults);
  const bool needs_reference = check_algorithm(topology, words, faults);
  check_sampling(topology.sampling, faults);
  check_nodes(topology, words, faults);
  // A node that could not be read may be the very one that would be reported missing.
  if (nodes_read) check_cast(topology, needs_reference, words, faults);
  check_transport(topology, faults);
  if (!faults.lines.empty()) throw ConfigErrors(faults.lines);
  plan_threads(topology, options.cores > 0 ? options.cores : host_cores());
  return topology;
}

std::string describe(const Topology& topology, const Vocabulary& words) {
  std::size_t width = 9;
  for (const NodeSection& node : topology.nodes) width = std::max(width, node.name->size() + 4);
  std::string out = "  " + padded("node", width) + "replicas  threads  device   plays\n";
  for (const NodeSection& node : topology.nodes) {
    const auto role = std::ranges::find(words.roles, role_of(node), &RoleKind::name);
    out += "  " + padded(*node.name, width) + padded(std::to_string(node.count), 10) +
           padded(node.external ? "-" : std::to_string(node.threads), 9) + padded(node.device, 9) + role_of(node) +
           (node.external ? " (external)" : "") +
           (role == words.roles.end() || role->summary.empty() ? "" : ": " + role->summary) + "\n";
  }
  return out;
}

void write_run_topology(const Topology& topology, const std::filesystem::path& run_folder) {
  write_file_atomically(real_disk(), run_folder / "topology.json", to_json(topology).dump(2) + "\n");
}

}  // namespace troupe
