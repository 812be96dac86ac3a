// A user's topology file, read and checked as a whole before anything starts. All faults are reported together, each
// with file, line, JSON path and what was expected. Relative paths in a topology are relative to the current folder.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "roles/topology.hpp"

namespace troupe {

// A role that may stand in a topology. `check` gives the role's config with its defaults filled in; it throws
// std::invalid_argument (ConfigErrors) for one that makes no sense.
struct RoleKind {
  std::string name;
  std::string summary;  // one line
  std::function<Json(const Json& config, const JsonPath& where)> check;
};

// What a topology may name: the roles, and the check of its "algorithm" object, which tells whether the algorithm needs
// a reference and throws std::invalid_argument for settings that make no sense; and what this build can compute.
struct Vocabulary {
  std::vector<RoleKind> roles;
  std::function<bool(const Json& algorithm, const JsonPath& where)> check_algorithm;
  std::function<int64_t(const std::string& model)> max_positions{};  // of its prompt and answer; 0: cannot be told
  bool cuda = true;                                                  // roles can compute on CUDA devices
};

const Vocabulary& vocabulary();  // of this binary

struct LoadOptions {
  std::vector<std::string> overrides;  // "path=value", in order (core/config.hpp, set_by_path)
  std::filesystem::path folder;        // what relative paths are relative to; empty: the current folder
  int cores = 0;                       // to share among the nodes; 0: what this process may use
};

// Reads and overrides: what of it can be read. Opens no other file. Throws as load_topology, but for faults.
Topology read_unchecked(const std::filesystem::path& file, const std::vector<std::string>& overrides);

// Reads, overrides, checks and fills in: absolute paths, planned threads, every role's defaults.
// Throws ConfigErrors with every fault found, std::invalid_argument for a file that is no JSON or an override that
// names nothing, std::runtime_error for a file that can't be read.
Topology load_topology(const std::filesystem::path& file, const LoadOptions& options = {},
                       const Vocabulary& words = vocabulary());

// One line per node: name, replicas, threads, device, what it does; for `troupe topology show`.
std::string describe(const Topology& topology, const Vocabulary& words = vocabulary());

// Writes RUN/topology.json. Throws std::runtime_error naming the file.
void write_run_topology(const Topology& topology, const std::filesystem::path& run_folder);

}  // namespace troupe
