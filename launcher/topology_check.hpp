// The checks on a topology that no single field can make: what must be there once, what must fit together, what must
// exist on disk. Each adds one line "FILE:LINE: PATH: reason" to `faults`; none throws.
#pragma once

#include <string>
#include <vector>

#include "launcher/topology.hpp"

namespace troupe {

struct TopologyFaults {
  JsonPath where;
  std::vector<std::string> lines;
  void add(const JsonPath& at, const std::string& reason) { lines.push_back(at.prefix() + reason); }
};

inline constexpr int64_t kMaxInstances = 1024;

void check_run(const RunSection& run, TopologyFaults& faults);
void check_sampling(const Sampling& sampling, TopologyFaults& faults);
void check_transport(const Topology& topology, TopologyFaults& faults);

// Names, counts, devices, external nodes, and each node's config by its role; fills in role and config.
void check_nodes(Topology& topology, const Vocabulary& words, TopologyFaults& faults);

// One conductor, learner and reward; at least one actor; a reference where the algorithm needs one. Rules of the reward
// that others name are there; prompts and answers fit the model.
void check_cast(const Topology& topology, bool needs_reference, const Vocabulary& words, TopologyFaults& faults);

// Models (the nodes' own too) and prompt files exist; makes their paths absolute.
void check_files(Topology& topology, const std::filesystem::path& folder, TopologyFaults& faults);

}  // namespace troupe
