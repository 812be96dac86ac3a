// `troupe replay`: steps of a run again, by the real learners alone, fed from the journal. Either as they were,
// compared bit for bit with what the run recorded; or with another algorithm or other rewards, beside what they were.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "roles/topology.hpp"

namespace troupe {

struct ReplayChoice {
  std::filesystem::path run;
  uint64_t from = 0;  // the first step of interest, from 1
  uint64_t to = 0;    // the last one
  // What-if: the run's topology with changes to the learner, the algorithm or the reward.
  std::optional<Topology> changed;
  std::optional<std::filesystem::path> reward;     // what-if: {"rules": [...]}, as a reward node's config
  std::optional<std::filesystem::path> export_to;  // the policy after `to` as a Hugging Face folder
};

// Starts from the newest whole checkpoint before `from`, or the base model. As they were: prints each step's loss and
// what was compared, and returns 1 when a bit differs or nothing was recorded to compare with. What-if: prints both
// sides of every metric and returns 0. Throws for a step that the journal does not hold.
int replay_command(const ReplayChoice& choice);

}  // namespace troupe
