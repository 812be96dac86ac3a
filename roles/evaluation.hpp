// Asks the held-out prompts and counts the right answers. The draws lie in a range of their own (bit 63 set), so an
// evaluation never disturbs the run's randomness. Single-threaded; waits.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "roles/conductor_config.hpp"
#include "roles/generation.hpp"
#include "roles/prompt_source.hpp"

namespace troupe {

struct Accuracy {
  double value = 0;  // right answers / prompts
  int64_t right = 0;
  int64_t prompts = 0;
};

class Evaluation {
 public:
  Evaluation(Context& context, const EvaluationSection& config, Sampling sampling, uint64_t seed,
             std::vector<TokenizedPrompt> prompts, Handle<RewardFace> reward, Millis deadline);

  // With policy `version`, which every actor of `generation` holds. Throws RemoteFailure, and std::runtime_error for a
  // rule that the reward model does not have. Returns early (with fewer prompts) when the node is told to stop.
  Accuracy run(Generation& generation, uint64_t version);

 private:
  bool right(const Scores& scores) const;

  Context& context_;
  const EvaluationSection config_;
  Sampling sampling_;
  const uint64_t seed_;
  const std::vector<TokenizedPrompt> prompts_;
  Handle<RewardFace> reward_;
  const Millis deadline_;
};

}  // namespace troupe
