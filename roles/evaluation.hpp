// Asks the held-out prompts and counts the right answers. The draws lie in a range of their own (bit 63 set), so an
// evaluation never disturbs the run's randomness. Single-threaded; waits.
#pragma once

#include <set>
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

// Whether the one answer of `scores` is right: the value of `rule` is at least 1; where `rule` is "", the value of
// every part but those named in `shaping`; where none is left, the score. Throws std::runtime_error for a rule that is
// none of the parts.
bool is_right(const Scores& scores, const std::string& rule, const std::set<std::string>& shaping);

class Evaluation {
 public:
  // `shaping`: the reward's rules that say nothing of right and wrong (RuleSet::shaping).
  Evaluation(Context& context, const EvaluationSection& config, Sampling sampling, uint64_t seed,
             std::vector<TokenizedPrompt> prompts, Handle<RewardFace> reward, std::set<std::string> shaping,
             Millis deadline);

  // With policy `version`, which every actor of `generation` holds. Throws RemoteFailure, and std::runtime_error for a
  // rule that the reward model does not have. Returns early (with fewer prompts) when the node is told to stop.
  Accuracy run(Generation& generation, uint64_t version);

 private:
  Context& context_;
  const EvaluationSection config_;
  Sampling sampling_;
  const uint64_t seed_;
  const std::vector<TokenizedPrompt> prompts_;
  Handle<RewardFace> reward_;
  const std::set<std::string> shaping_;
  const Millis deadline_;
};

}  // namespace troupe
