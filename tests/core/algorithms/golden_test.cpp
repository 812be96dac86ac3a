// Figures from published tables of values, six digits: OpenRLHF 0.11.2 and TRL 1.16.0 executed on the "small" batch.
// The oracles cover more; these stay readable and need no file.
#include <gtest/gtest.h>

#include "core/algorithms/grpo.hpp"
#include "core/config.hpp"
#include "tests/core/algorithms/padded_batch.hpp"

namespace troupe {
namespace {

GrpoConfig config_of(const std::string& json) {
  Json full = parse_json(json, "case");
  if (!full.contains("correction")) full["correction"] = {{"mode", "off"}};
  return from_json<GrpoConfig>(full, JsonPath("case"));
}

struct Golden {
  const char* config;
  double loss;
  std::vector<double> gradient;  // 4 tokens of the first sequence, 3 of the second
};

void expect(const Golden& golden, double scale_by = 1) {
  SCOPED_TRACE(golden.config);
  const GrpoConfig config = config_of(golden.config);
  const LossBatch batch = packed(small_batch(), at::kFloat);
  LossScale scale = grpo_scale(config, batch);
  scale.num_tokens *= scale_by;
  const LossResult result = grpo_loss(config, batch, scale);
  result.loss.backward();
  EXPECT_NEAR(result.loss.item<double>(), golden.loss, 1e-6);
  EXPECT_LT(largest_difference(gradient_of(batch.logprobs), at::tensor(golden.gradient, at::kDouble)), 1e-6);
}

const std::vector<double> kDapo{0, -.157882, -.086647, -.142857, .524185, 0, .174486};

TEST(GoldenGrpo, AveragesOverTokens) {
  expect({R"({"loss_type": "dapo"})", .254143, kDapo});
  expect({R"({"loss_type": "bnpo"})", .254143, kDapo});
}

TEST(GoldenGrpo, AveragesOverSequences) {
  expect({R"({"loss_type": "grpo"})", .459487, {0, -.138146, -.075816, -.125, .611549, 0, .203567}});
}

TEST(GoldenGrpo, ClipsHigherWhenAsked) {
  expect({R"({"loss_type": "dapo", "clip_high": 0.28})",
          .251085,
          {-.174486, -.157882, -.086647, -.142857, .524185, 0, .174486}});
}

TEST(GoldenGrpo, DualClipAndDeltaBoundBadAnswers) {
  const std::vector<double> gradient{0, -.157882, -.086647, -.142857, 0, 0, .174486};
  expect({R"({"loss_type": "dapo", "dual_clip": 3})", .158529, gradient});
  expect({R"({"loss_type": "dapo", "delta": 3})", .158529, gradient});
}

TEST(GoldenGrpo, Sapo) {
  expect({R"({"loss_type": "sapo"})", .223732, {-.15082, -.137765, -.072956, -.125, .131865, .108439, .200841}});
}

TEST(GoldenGrpo, Vespo) {
  expect({R"({"loss_type": "vespo"})", .439051, {-.164952, -.164952, -.164952, -.164952, .070352, .070352, .070352}});
}

TEST(GoldenGrpo, AddsKlWithAndWithoutTheRatio) {
  expect({R"({"loss_type": "dapo", "kl_beta": 0.04, "kl_times_ratio": false})",
          .254981,
          {.000544, -.155998, -.087912, -.141821, .523584, -.001265, .17503}});
  expect({R"({"loss_type": "dapo", "kl_beta": 0.04, "kl_times_ratio": true})",
          .255026,
          {.000698, -.155355, -.08734, -.141714, .522089, -.000766, .175184}});
}

TEST(GoldenGrpo, SubtractsTheEntropyBonus) {
  expect({R"({"loss_type": "dapo", "entropy_coef": 0.01})", .245857, kDapo});
}

TEST(GoldenGrpo, HalfTheTokenCountDoublesTheLoss) {
  // TRL's gradient accumulation of 2 over a generation batch of 4 steps: half the generated tokens are one window.
  std::vector<double> twice;
  for (const double g : kDapo) twice.push_back(2 * g);
  expect({R"({"loss_type": "dapo"})", .508285, twice}, 0.5);
}

TEST(GoldenGrpo, CorrectsForTheGenerator) {
  expect({R"({"loss_type": "dapo", "correction": {"mode": "truncate", "level": "token", "high": 3}})",
          .132474,
          {0, -.142857, -.052554, -.157882, .174486, 0, .157882}});
  expect({R"({"loss_type": "dapo", "correction": {"mode": "mask", "level": "token", "low": 0.5, "high": 1.5}})",
          -.384869,
          {0, -.142857, -.052554, -.157882, 0, 0, .157882}});
  expect({R"({"loss_type": "dapo", "correction":
             {"mode": "mask", "level": "geometric", "statistic": "binary_kl", "high": 0.05}})",
          -.542751,
          {0, -.142857, -.052554, -.157882, 0, 0, 0}});
  expect({R"({"loss_type": "dapo", "correction": {"mode": "mask", "level": "sequence", "high": 3}})",
          .361009,
          {0, -.105831, -.058081, -.09576, .474302, 0, .157882}});
}

TEST(GoldenKl, EstimatorsGiveTheirPublishedValues) {
  const PaddedBatch b = small_batch();
  const at::Tensor L = packed(b.logprobs, b.lengths), L_ref = packed(b.reference, b.lengths);
  const auto near = [&](KlEstimator estimator, const std::vector<double>& expected) {
    EXPECT_LT(largest_difference(kl_estimate(estimator, L, L_ref), at::tensor(expected, at::kDouble)), 1e-6);
  };
  near(KlEstimator::kK1, {.1, .4, -.2, .2, -.1, -.2, .1});
  near(KlEstimator::kK2, {.005, .08, .02, .02, .005, .02, .005});
  near(KlEstimator::kK3, {.004837, .07032, .021403, .018731, .005171, .021403, .004837});
}

TEST(GoldenKl, TokenMeansAndGradients) {
  const auto run = [](const std::string& keys, double expected, const std::vector<double>& gradient) {
    GrpoConfig config = config_of(R"({"loss_type": "dapo", "kl_beta": 1, "kl_times_ratio": false, )" + keys + "}");
    LossBatch batch = packed(small_batch());
    batch.advantages.zero_();
    const LossResult result = grpo_loss(config, batch, grpo_scale(config, batch));
    result.loss.backward();
    EXPECT_NEAR(result.loss.item<double>(), expected, 1e-6) << keys;
    EXPECT_LT(largest_difference(gradient_of(batch.logprobs), at::tensor(gradient, at::kDouble)), 1e-6) << keys;
  };
  const std::vector<double> k3{.013595, .047097, -.031629, .025896, -.015024, -.031629, .013595};
  const std::vector<double> unbiased{.017449, .063153, -.017329, .028571, -.052419, -.019152, .017449};
  run(R"("kl_estimator": "k3")", .020957, k3);
  run(R"("kl_estimator": "k1", "kl_unbiased_gradient": true)", .042857, unbiased);
  run(R"("kl_estimator": "k2", "kl_unbiased_gradient": true)", .022143, unbiased);
  run(R"("kl_estimator": "k3", "kl_unbiased_gradient": true)", .020957, unbiased);
}

}  // namespace
}  // namespace troupe
