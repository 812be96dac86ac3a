#include "core/algorithms/importance.hpp"

#include <gtest/gtest.h>

#include "core/config.hpp"

namespace troupe {
namespace {

const std::vector<int64_t> kLengths{3, 2};

ImportanceWeights weights(const CorrectionConfig& c, const std::vector<double>& ratios,
                          const std::vector<double>& mask = {1, 1, 1, 1, 1}) {
  const at::Tensor behaviour = at::full({5}, -2.0, at::kDouble);
  const at::Tensor old = behaviour + at::tensor(ratios, at::kDouble).log();
  return importance_weights(c, Sequences(at::tensor(kLengths, at::kLong), 5), old, behaviour,
                            at::tensor(mask, at::kDouble));
}

void expect_weight(const CorrectionConfig& c, const std::vector<double>& ratios, const std::vector<double>& expected) {
  const at::Tensor got = weights(c, ratios).weight;
  for (int64_t i = 0; i < 5; ++i) EXPECT_NEAR(got[i].item<double>(), expected[i], 1e-12) << "token " << i;
}

CorrectionConfig config(CorrectionMode mode, CorrectionLevel level, double low, double high) {
  return {mode, level, CorrectionStatistic::kRatio, low, high};
}

TEST(Importance, TokenLevelTruncatesOrMasksEachToken) {
  using enum CorrectionLevel;
  expect_weight(config(CorrectionMode::kTruncate, kToken, 0.5, 2), {1, 3, 0.1, 1.5, 2}, {1, 2, 0.5, 1.5, 2});
  expect_weight(config(CorrectionMode::kMask, kToken, 0.5, 2), {1, 3, 0.1, 1.5, 2}, {1, 0, 0, 1.5, 2});
}

TEST(Importance, SequenceLevelUsesTheProduct) {
  using enum CorrectionLevel;
  expect_weight(config(CorrectionMode::kTruncate, kSequence, 0, 3), {2, 2, 2, 2, 0.5}, {3, 3, 3, 1, 1});
  expect_weight(config(CorrectionMode::kMask, kSequence, 0, 3), {2, 2, 2, 2, 0.5}, {0, 0, 0, 1, 1});
}

TEST(Importance, GeometricLevelUsesTheMeanOfLogs) {
  using enum CorrectionLevel;
  expect_weight(config(CorrectionMode::kMask, kGeometric, 0.5, 1.5), {1, 8, 0.125, 4, 4}, {1, 8, 0.125, 0, 0});
  expect_weight(config(CorrectionMode::kTruncate, kGeometric, 0.5, 3), {1, 8, 0.125, 4, 4}, {1, 1, 1, 3, 3});
}

TEST(Importance, MaskedTokensTakeNoPart) {
  const auto got =
      weights(config(CorrectionMode::kMask, CorrectionLevel::kSequence, 0, 3), {2, 100, 1, 1, 1}, {1, 0, 1, 1, 1});
  EXPECT_NEAR(got.weight[0].item<double>(), 2, 1e-12);
  EXPECT_NEAR(got.sequence_log_weight[0].item<double>(), std::log(2), 1e-12);
}

TEST(Importance, UnknownBehaviourGivesWeightOne) {
  at::Tensor behaviour = at::full({5}, -2.0, at::kDouble);
  behaviour[1] = std::nan("");
  const at::Tensor old = at::full({5}, -1.0, at::kDouble);
  for (const auto statistic : {CorrectionStatistic::kRatio, CorrectionStatistic::kBinaryKl}) {
    const CorrectionConfig c{CorrectionMode::kMask, CorrectionLevel::kToken, statistic, 0, 100};
    const at::Tensor w =
        importance_weights(c, Sequences(at::tensor(kLengths, at::kLong), 5), old, behaviour, at::ones({5}, at::kDouble))
            .weight;
    EXPECT_NEAR(w[1].item<double>(), 1, 1e-12);
    EXPECT_NEAR(w[0].item<double>(), std::exp(1), 1e-12);
  }
}

TEST(Importance, HugeRatiosStayFinite) {
  const at::Tensor behaviour = at::tensor(std::vector<float>{-200, -0.1f, -0.1f, -300, -0.1f});
  const at::Tensor old = at::tensor(std::vector<float>{-0.1f, -100, -0.1f, -0.1f, -0.1f});
  for (const auto mode : {CorrectionMode::kTruncate, CorrectionMode::kMask})
    for (const auto level : {CorrectionLevel::kToken, CorrectionLevel::kSequence, CorrectionLevel::kGeometric}) {
      const auto w = importance_weights(config(mode, level, 0, 1e9), Sequences(at::tensor(kLengths, at::kLong), 5), old,
                                        behaviour, at::ones({5}));
      EXPECT_TRUE(w.weight.isfinite().all().item<bool>());
      EXPECT_TRUE(w.sequence_log_weight.isfinite().all().item<bool>());
    }
}

TEST(Importance, SettingsThatMakeNoSenseAreNamed) {
  const auto refused = [](const std::string& json, const std::string& words) {
    try {
      check(from_json<CorrectionConfig>(parse_json(json, "t"), JsonPath("t")), JsonPath("t", "correction"));
      FAIL() << json;
    } catch (const std::invalid_argument& error) {
      EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
    }
  };
  refused(R"({"low": 3})", "correction.high");
  refused(R"({"low": -1})", "correction.low");
  refused(R"({"statistic": "binary_kl"})", "correction.statistic");
  refused(R"({"statistic": "binary_kl", "mode": "mask", "level": "sequence"})", "correction.level");
}

}  // namespace
}  // namespace troupe
