// Losses and gradients against TRL's and OpenRLHF's own code, and decoupled PPO against its formulas written out in
// torch (tests/oracles/algorithms), in double to 1e-9 and in float32 to 1e-6.
#include <gtest/gtest.h>

#include "core/algorithms/grpo.hpp"
#include "core/config.hpp"
#include "tests/core/algorithms/padded_batch.hpp"

namespace troupe {
namespace {

Json oracle(const std::string& name) {
  return parse_json_file(std::string(TROUPE_SOURCE_DIR) + "/tests/oracles/data/algorithms/" + name);
}

// The configuration as a topology would give it, with the correction off unless the case has one.
GrpoConfig config_of(const Json& json) {
  Json full = json;
  if (!full.contains("correction")) full["correction"] = {{"mode", "off"}};
  const auto config = from_json<GrpoConfig>(full, JsonPath("case"));
  check(config, JsonPath("case"));
  return config;
}

struct Outcome {
  double loss;
  at::Tensor grad, entropy_grad;
  std::map<std::string, double> metrics;
};

Outcome run(const GrpoConfig& config, const LossBatch& batch) {
  const LossResult result = grpo_loss(config, batch, grpo_scale(config, batch));
  result.loss.backward();
  return {result.loss.item<double>(), gradient_of(batch.logprobs), gradient_of(batch.entropy), result.metrics.values()};
}

const std::map<std::string, std::string> kTrlMetrics{{"kl", "kl"},
                                                     {"entropy", "entropy"},
                                                     {"clip_ratio/low_mean", "clip_fraction_low"},
                                                     {"clip_ratio/high_mean", "clip_fraction_high"},
                                                     {"clip_ratio/region_mean", "clip_fraction"},
                                                     {"cispo_clip_ratio", "clip_fraction_high"}};

void expect_trl_case(const Json& batches, const Json& c, at::ScalarType type, double tolerance) {
  SCOPED_TRACE(c["batch"].get<std::string>() + " " + c["config"].dump());
  const PaddedBatch padded = batch_of(batches[c["batch"].get<std::string>()]);
  const GrpoConfig config = config_of(c["config"]);
  LossBatch batch = packed(padded, type);
  if (!c["with_old"]) batch.old_logprobs = at::Tensor();
  const Outcome got = run(config, batch);
  EXPECT_NEAR(got.loss, c["loss"], tolerance);
  EXPECT_LT(largest_difference(got.grad, packed(c["grad"], padded.lengths)), tolerance);
  EXPECT_LT(largest_difference(got.entropy_grad, packed(c["entropy_grad"], padded.lengths)), tolerance);
  for (const auto& [theirs, ours] : kTrlMetrics) {
    if (c["metrics"].contains(theirs)) {
      EXPECT_NEAR(got.metrics.at(ours), c["metrics"][theirs], 10 * tolerance + 1e-6) << ours;
    }
  }
}

TEST(TrlOracle, LossesAndGradientsAgreeInDouble) {
  const Json o = oracle("trl_grpo.json");
  ASSERT_GE(o["cases"].size(), 140u);
  for (const Json& c : o["cases"]) expect_trl_case(o["batches"], c, at::kDouble, 1e-9);
}

TEST(TrlOracle, LossesAndGradientsAgreeInFloat) {
  const Json o = oracle("trl_grpo.json");
  for (const Json& c : o["cases"]) expect_trl_case(o["batches"], c, at::kFloat, 1e-6);
}

TEST(TrlOracle, AdvantagesAgree) {
  const Json o = oracle("trl_grpo.json");
  ASSERT_GE(o["advantages"].size(), 8u);
  for (const Json& c : o["advantages"]) {
    SCOPED_TRACE(c.dump());
    const bool parts = c["combination"] == "normalize_then_sum";
    const auto weights = c["weights"].get<std::vector<double>>();
    Json config{{"scale", c["scale"]}, {"combination", c["combination"]}};
    GroupRewards answers;
    for (std::size_t i = 0; i < c["rewards"].size(); ++i) {
      double total = 0;
      bool scored = false;
      for (std::size_t k = 0; k < weights.size(); ++k) {
        const Json& value = c["rewards"][i][k];
        const double number = value.is_null() ? std::nan("") : value.get<double>();
        answers.parts["part" + std::to_string(k)].push_back(number);
        if (parts) config["part_weights"]["part" + std::to_string(k)] = weights[k];
        if (!std::isnan(number)) total += weights[k] * number, scored = true;
      }
      answers.rewards.push_back(scored ? total : std::nan(""));
      answers.groups.push_back(i / c["group_size"].get<std::size_t>());
    }
    const auto settings = from_json<AdvantageConfig>(config, JsonPath("case"));
    check(settings, JsonPath("case"));
    const GroupAdvantages got = group_advantages(settings, answers);
    for (std::size_t i = 0; i < answers.rewards.size(); ++i)
      EXPECT_NEAR(got.advantages[i], c["advantages"][i], 1e-6) << "answer " << i;
  }
}

TEST(OpenRlhfOracle, LossesAndGradientsAgree) {
  const Json o = oracle("openrlhf.json");
  ASSERT_GE(o["losses"].size(), 50u);
  for (const Json& c : o["losses"]) {
    SCOPED_TRACE(c["batch"].get<std::string>() + " " + c["config"].dump());
    const PaddedBatch padded = batch_of(o["batches"][c["batch"].get<std::string>()]);
    const GrpoConfig config = config_of(c["config"]);
    for (const auto& [type, tolerance] : {std::pair{at::kDouble, 2e-8}, std::pair{at::kFloat, 1e-6}}) {
      const Outcome got = run(config, packed(padded, type));
      EXPECT_NEAR(got.loss, c["loss"], tolerance);
      EXPECT_LT(largest_difference(got.grad, packed(c["grad"], padded.lengths)), tolerance);
    }
  }
}

// mu, the proximal policy and pi are three policies here.
TEST(DecoupledOracle, LossesGradientsAndOffPolicyFiguresAgree) {
  const Json o = oracle("decoupled.json");
  ASSERT_GE(o["cases"].size(), 48u);
  for (const Json& c : o["cases"]) {
    SCOPED_TRACE(c["batch"].get<std::string>() + " " + c["config"].dump());
    const PaddedBatch padded = batch_of(o["batches"][c["batch"].get<std::string>()]);
    const GrpoConfig config = config_of(c["config"]);
    for (const auto& [type, tolerance] : {std::pair{at::kDouble, 2e-9}, std::pair{at::kFloat, 2e-6}}) {
      const Outcome got = run(config, packed(padded, type));
      EXPECT_NEAR(got.loss, c["loss"], tolerance);
      EXPECT_LT(largest_difference(got.grad, packed(c["grad"], padded.lengths)), tolerance);
      for (const auto& [name, value] : c["metrics"].items())
        EXPECT_NEAR(got.metrics.at(name), value, type == at::kDouble ? 1e-7 : 1e-5) << name;
    }
  }
}

TEST(OpenRlhfOracle, KlEstimatorsAgree) {
  const Json o = oracle("openrlhf.json");
  ASSERT_GE(o["kls"].size(), 12u);
  for (const Json& c : o["kls"]) {
    SCOPED_TRACE(c["batch"].get<std::string>() + " " + c["config"].dump());
    const PaddedBatch padded = batch_of(o["batches"][c["batch"].get<std::string>()]);
    GrpoConfig config = config_of(c["config"]);
    config.kl_beta = 1;  // beside a policy term of no weight
    LossBatch batch = packed(padded);
    batch.advantages.zero_();
    const Outcome got = run(config, batch);
    EXPECT_NEAR(got.loss, c["kl"], 1e-6);
    EXPECT_LT(largest_difference(got.grad, packed(c["grad"], padded.lengths)), 1e-6);
    EXPECT_NEAR(got.metrics.at("kl"), c["kl"], 1e-6);
  }
}

}  // namespace
}  // namespace troupe
