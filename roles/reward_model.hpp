// Scores answers by rules. Stateless: the same answers get the same scores from any incarnation.
// Single-threaded: the runner calls one handler at a time.
#pragma once

#include "actors/runner.hpp"
#include "core/rewards/rules.hpp"
#include "roles/setting.hpp"

namespace troupe {

class RewardModel {
 public:
  using Face = RewardFace;

  struct Config {
    Required<Json> rules;  // array of rules: docs/algorithms.md, "Rewards by rule"
    static constexpr std::tuple kFields{Field{"rules", &Config::rules}};
  };

  explicit RewardModel(const RoleSetting& setting);

  // [B] answers to one prompt -> [B] finite scores, and each rule's own values. Throws std::invalid_argument when the
  // lists differ in length; a rule that cannot be computed for a sample is an error that names both, never a score.
  Scores handle(const Score& m);

 private:
  RuleSet rules_;
};
static_assert(Serves<RewardModel, RewardFace>);

}  // namespace troupe
