#include "core/algorithms/table.hpp"

#include <gtest/gtest.h>

#include "core/config.hpp"

namespace troupe {
namespace {

Algorithm made(const std::string& json) {
  return make_algorithm(parse_json(json, "t"), JsonPath("t.json", "algorithm"));
}

void expect_refused(const std::string& json, const std::vector<std::string>& words) {
  try {
    made(json);
    FAIL() << "accepted: " << json;
  } catch (const std::invalid_argument& error) {
    for (const std::string& word : words)
      EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << word << " not in: " << error.what();
  }
}

TEST(AlgorithmTable, MakesGrpoFromATopology) {
  const Algorithm a = made(R"({"type": "grpo", "loss_type": "grpo", "kl_beta": 0.04, "clip_high": 0.28})");
  EXPECT_EQ(a.name, "grpo");
  EXPECT_TRUE(a.needs_reference);
  EXPECT_FALSE(a.needs_entropy);
  GroupRewards answers{.rewards = {1, 0}, .groups = {7, 7}, .num_tokens = {}, .truncated = {}, .parts = {}};
  EXPECT_GT(a.advantages(answers).advantages[0], 0.5);
  LossBatch batch;
  batch.mask = at::ones({3}, at::kByte);
  batch.lengths = at::tensor(std::vector<int64_t>{3}, at::kLong);
  EXPECT_EQ(a.scale(batch).num_tokens, 3);
}

TEST(AlgorithmTable, TellsWhatABatchMustCarry) {
  EXPECT_FALSE(made(R"({"type": "grpo"})").needs_reference);
  const Algorithm bonus = made(R"({"type": "grpo", "entropy_coef": 0.01})");
  EXPECT_TRUE(bonus.needs_entropy && bonus.entropy_in_loss && !bonus.scale_needs_entropy);
  const Algorithm quantile = made(R"({"type": "grpo", "top_entropy_quantile": 0.2})");
  EXPECT_TRUE(quantile.needs_entropy && !quantile.entropy_in_loss && quantile.scale_needs_entropy);
}

TEST(AlgorithmTable, RefusesWhatItDoesNotKnow) {
  expect_refused(R"({"type": "grop"})", {"algorithm.type", "grop", "grpo"});
  expect_refused(R"({"loss_type": "grpo"})", {"algorithm.type", "missing"});
  expect_refused(R"([])", {"algorithm", "object"});
  expect_refused(R"({"type": "grpo", "clip_hihg": 0.3})", {"clip_hihg", "clip_high"});
  expect_refused(R"({"type": "grpo", "loss_type": "dapoo"})", {"algorithm.loss_type", "dapo"});
  expect_refused(R"({"type": "grpo", "advantage": {"scale": "groop"}})", {"algorithm.advantage.scale", "group"});
}

TEST(AlgorithmTable, RefusesSettingsThatContradict) {
  expect_refused(R"({"type": "grpo", "loss_type": "dr_grpo"})", {"algorithm.max_completion_length"});
  expect_refused(R"({"type": "grpo", "old_policy": "behaviour"})", {"algorithm.old_policy", "correction.mode"});
  expect_refused(R"({"type": "grpo", "kl_unbiased_gradient": true})", {"kl_unbiased_gradient", "kl_times_ratio"});
  expect_refused(R"({"type": "grpo", "loss_type": "vespo", "importance_level": "sequence"})", {"importance_level"});
  expect_refused(R"({"type": "grpo", "loss_type": "luspo"})", {"importance_level"});
  expect_refused(R"({"type": "grpo", "delta": 1.1})", {"algorithm.delta"});
  expect_refused(R"({"type": "grpo", "dual_clip": 0.5})", {"algorithm.dual_clip"});
  expect_refused(R"({"type": "grpo", "correction": {"high": 0}})", {"algorithm.correction.high"});
  expect_refused(R"({"type": "grpo", "top_entropy_quantile": 0})", {"algorithm.top_entropy_quantile"});
}

}  // namespace
}  // namespace troupe
