#include "roles/reward_model.hpp"

namespace troupe {

RewardModel::RewardModel(const RoleSetting& setting) : rules_(RuleSet::from_json(setting.config(), setting.where())) {}

Scores RewardModel::handle(const Score& m) {
  const std::size_t count = m.responses.size();
  if (m.num_tokens.size() != count || m.truncated.size() != count)
    throw std::invalid_argument("score: " + std::to_string(count) + " responses, " +
                                std::to_string(m.num_tokens.size()) + " num_tokens, " +
                                std::to_string(m.truncated.size()) + " truncated; expected as many of each");
  Scores out;
  for (std::size_t i = 0; i < count; ++i) {
    const RuleScores scored = rules_.score({.prompt = m.prompt,
                                            .answer = m.answer,
                                            .response = m.responses[i],
                                            .num_tokens = m.num_tokens[i],
                                            .truncated = m.truncated[i],
                                            .max_new_tokens = m.max_new_tokens});
    out.scores.push_back(scored.total);
    for (const auto& [rule, value] : scored.parts) out.parts[rule].push_back(value);
  }
  return out;
}

}  // namespace troupe
