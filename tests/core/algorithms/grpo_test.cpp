// What must hold whatever the figures: the result does not depend on how an update is cut, ordered or padded; gradients
// are the loss's slopes; nothing at masked tokens is read.
#include "core/algorithms/grpo.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <numeric>
#include <random>

#include "core/config.hpp"
#include "tests/core/algorithms/padded_batch.hpp"

namespace troupe {
namespace {

// One sequence's tokens.
struct Answer {
  std::vector<double> logprobs, old, behaviour, reference, entropy, mask;
  double advantage;
};

std::vector<Answer> random_answers(int seed, int count = 9) {
  std::mt19937 random(seed);
  std::normal_distribution<> noise(0, 0.3);
  std::uniform_real_distribution<> unit(0, 1);
  std::vector<Answer> out;
  for (int i = 0; i < count; ++i) {
    Answer a;
    const int length = 1 + static_cast<int>(random() % 8);
    for (int t = 0; t < length; ++t) {
      const double old = -3 * unit(random);
      a.old.push_back(old);
      a.logprobs.push_back(old + noise(random));
      a.behaviour.push_back(old + noise(random));
      a.reference.push_back(old + noise(random));
      a.entropy.push_back(2 * unit(random));
      a.mask.push_back(unit(random) < 0.85);
    }
    a.advantage = noise(random) * 3;
    out.push_back(std::move(a));
  }
  out[1].mask.assign(out[1].mask.size(), 0);  // one counts no token at all
  return out;
}

LossBatch packed(const std::vector<Answer>& answers, at::ScalarType type = at::kDouble) {
  PaddedBatch b;
  for (const Answer& a : answers) {
    b.logprobs.push_back(a.logprobs);
    b.old.push_back(a.old);
    b.behaviour.push_back(a.behaviour);
    b.reference.push_back(a.reference);
    b.entropy.push_back(a.entropy);
    b.mask.push_back(a.mask);
    b.lengths.push_back(static_cast<int64_t>(a.mask.size()));
    b.advantages.push_back(a.advantage);
  }
  return troupe::packed(b, type);
}

GrpoConfig config_of(const std::string& json) {
  const auto config = from_json<GrpoConfig>(parse_json(json, "case"), JsonPath("case"));
  check(config, JsonPath("case"));
  return config;
}

const std::vector<std::string>& settings() {
  static const std::vector<std::string> list{
      R"({})",
      R"({"loss_type": "grpo", "kl_beta": 0.04, "clip_high": 0.28})",
      R"({"loss_type": "bnpo", "importance_level": "sequence", "correction": {"mode": "off"}})",
      R"({"loss_type": "dr_grpo", "max_completion_length": 16, "dual_clip": 1.2})",
      R"({"loss_type": "grpo", "importance_level": "sequence", "kl_beta": 0.1})",
      R"({"loss_type": "dapo", "delta": 1.3, "off_policy_threshold": 0.02})",
      R"({"loss_type": "cispo", "cispo_max_ratio": 1.2, "correction": {"mode": "mask", "low": 0.8, "high": 1.2}})",
      R"({"loss_type": "sapo", "kl_beta": 0.04, "kl_estimator": "k2", "kl_times_ratio": false, "kl_clamp": 10})",
      R"({"loss_type": "vespo", "correction": {"mode": "mask", "level": "sequence", "high": 3}})",
      R"({"loss_type": "luspo", "importance_level": "sequence", "kl_beta": 0.04})",
      R"({"loss_type": "dapo", "top_entropy_quantile": 0.3, "entropy_coef": 0.02, "kl_beta": 0.02})",
      R"({"loss_type": "dapo", "correction": {"mode": "truncate", "level": "geometric", "low": 0.9, "high": 1.1}})",
      R"({"loss_type": "grpo", "correction":
          {"mode": "mask", "level": "geometric", "statistic": "total_variation", "high": 0.1}})",
      R"({"loss_type": "dapo", "old_policy": "behaviour", "correction": {"mode": "off"}})",
      R"({"loss_type": "dapo", "kl_beta": 0.3, "kl_estimator": "k1", "kl_unbiased_gradient": true,
          "kl_times_ratio": false})"};
  return list;
}

struct Outcome {
  double loss = 0;
  std::vector<at::Tensor> gradients, entropy_gradients;  // one a sequence
  LossMetrics metrics;
};

Outcome run(const GrpoConfig& config, const std::vector<Answer>& answers, const LossScale& scale,
            at::ScalarType type = at::kDouble) {
  const LossBatch batch = packed(answers, type);
  const LossResult result = grpo_loss(config, batch, scale);
  result.loss.backward();
  const auto split = [&](const at::Tensor& leaf) {
    std::vector<at::Tensor> parts;
    int64_t at = 0;
    for (const Answer& a : answers) {
      const auto length = static_cast<int64_t>(a.mask.size());
      parts.push_back(gradient_of(leaf).narrow(0, at, length));
      at += length;
    }
    return parts;
  };
  return {result.loss.item<double>(), split(batch.logprobs), split(batch.entropy), result.metrics};
}

LossScale scale_of(const GrpoConfig& config, const std::vector<Answer>& answers, at::ScalarType type = at::kDouble) {
  return grpo_scale(config, packed(answers, type));
}

void expect_same_metrics(const LossMetrics& got, const LossMetrics& expected, double tolerance) {
  const auto a = got.values(), b = expected.values();
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, value] : b) EXPECT_NEAR(a.at(name), value, tolerance) << name;
}

void expect_same_however_cut(const GrpoConfig& config) {
  for (const auto& [type, tolerance] : {std::pair{at::kDouble, 1e-12}, std::pair{at::kFloat, 1e-6}}) {
    const std::vector<Answer> answers = random_answers(1);
    const LossScale scale = scale_of(config, answers, type);
    const Outcome whole = run(config, answers, scale, type);
    std::mt19937 random(2);
    for (int trial = 0; trial < 5; ++trial) {
      std::vector<std::size_t> order(answers.size());
      std::iota(order.begin(), order.end(), 0);
      std::shuffle(order.begin(), order.end(), random);
      double loss = 0;
      LossMetrics metrics;
      for (std::size_t start = 0; start < order.size();) {
        const std::size_t end = std::min(order.size(), start + 1 + random() % 4);
        std::vector<Answer> micro;
        for (std::size_t i = start; i < end; ++i) micro.push_back(answers[order[i]]);
        const Outcome part = run(config, micro, scale, type);
        loss += part.loss;
        metrics.add(part.metrics);
        for (std::size_t i = start; i < end; ++i) {
          EXPECT_LT(largest_difference(part.gradients[i - start], whole.gradients[order[i]]), tolerance);
          EXPECT_LT(largest_difference(part.entropy_gradients[i - start], whole.entropy_gradients[order[i]]),
                    tolerance);
        }
        start = end;
      }
      EXPECT_NEAR(loss, whole.loss, tolerance);
      expect_same_metrics(metrics, whole.metrics, 10 * tolerance);
    }
  }
}

void expect_same_whatever_is_masked(const GrpoConfig& config) {
  const std::vector<Answer> answers = random_answers(3);
  const Outcome plain = run(config, answers, scale_of(config, answers));
  for (const double rubbish : {0.0, 1e30, std::nan(""), -std::numeric_limits<double>::infinity()}) {
    for (const bool left : {false, true}) {
      std::vector<Answer> padded = answers;
      for (std::size_t i = 0; i < padded.size(); ++i) {
        Answer& a = padded[i];
        for (auto* values : {&a.logprobs, &a.old, &a.behaviour, &a.reference, &a.entropy}) {
          for (std::size_t t = 0; t < a.mask.size(); ++t)
            if (a.mask[t] == 0) (*values)[t] = rubbish;
          values->insert(left ? values->begin() : values->end(), i % 3, rubbish);
        }
        a.mask.insert(left ? a.mask.begin() : a.mask.end(), i % 3, 0.0);
      }
      const Outcome got = run(config, padded, scale_of(config, padded));
      EXPECT_NEAR(got.loss, plain.loss, 1e-12);
      expect_same_metrics(got.metrics, plain.metrics, 1e-11);
      for (std::size_t i = 0; i < answers.size(); ++i) {
        const auto length = static_cast<int64_t>(answers[i].mask.size());
        const int64_t pads = static_cast<int64_t>(i % 3);
        EXPECT_LT(largest_difference(got.gradients[i].narrow(0, left ? pads : 0, length), plain.gradients[i]), 1e-12);
        EXPECT_EQ(got.gradients[i].narrow(0, left ? 0 : length, pads).count_nonzero().item<int64_t>(), 0);
      }
    }
  }
}

void expect_zero_without_tokens(const GrpoConfig& config) {
  std::vector<Answer> answers = random_answers(4, 3);
  for (Answer& a : answers) a.mask.assign(a.mask.size(), 0);
  const Outcome got = run(config, answers, scale_of(config, answers));
  EXPECT_EQ(got.loss, 0);
  for (const at::Tensor& g : got.gradients) EXPECT_EQ(g.count_nonzero().item<int64_t>(), 0);
  for (const auto& [name, value] : got.metrics.values()) EXPECT_TRUE(std::isfinite(value)) << name;
}

void for_all_settings(void (*expect)(const GrpoConfig&)) {
  for (const std::string& json : settings()) {
    SCOPED_TRACE(json);
    expect(config_of(json));
  }
}

TEST(GrpoInvariance, HoldsHoweverTheUpdateIsCutAndOrdered) {
  for_all_settings(expect_same_however_cut);
}
TEST(GrpoInvariance, HoldsWhateverStandsAtMaskedTokens) {
  for_all_settings(expect_same_whatever_is_masked);
}
TEST(GrpoInvariance, AnUpdateWithoutCountedTokensIsZero) {
  for_all_settings(expect_zero_without_tokens);
}

// Central differences, for settings whose loss has no stopped gradient and no oracle.
TEST(GrpoGradient, IsTheSlopeOfTheLoss) {
  for (const std::string json :
       {R"({"loss_type": "grpo", "importance_level": "sequence", "dual_clip": 1.1, "correction": {"mode": "off"}})",
        R"({"loss_type": "dapo", "kl_beta": 0.5, "kl_estimator": "k1"})",
        R"({"loss_type": "dapo", "kl_beta": 0.5, "kl_estimator": "k2", "importance_level": "sequence"})",
        R"({"loss_type": "dapo", "kl_beta": 0.5, "kl_estimator": "k3", "kl_clamp": 0.05, "kl_times_ratio": false})",
        R"({"loss_type": "dapo", "log_ratio_clamp": 0.25, "clip_low": 0.4, "clip_high": 0.5})",
        R"({"loss_type": "grpo", "correction": {"mode": "truncate", "level": "geometric", "low": 0.95, "high": 1.05}})",
        R"({"loss_type": "luspo", "importance_level": "sequence", "delta": 1.25, "off_policy_threshold": 0.05})",
        R"({"loss_type": "sapo", "importance_level": "sequence", "top_entropy_quantile": 0.5, "entropy_coef": 0.1})",
        R"({"loss_type": "dr_grpo", "max_completion_length": 9, "old_policy": "behaviour",
            "correction": {"mode": "off"}})"}) {
    SCOPED_TRACE(json);
    const GrpoConfig config = config_of(json);
    std::vector<Answer> answers = random_answers(5, 4);
    const LossScale scale = scale_of(config, answers);
    const Outcome exact = run(config, answers, scale);
    constexpr double kStep = 1e-6;
    int compared = 0;
    for (std::size_t i = 0; i < answers.size(); ++i)
      for (std::size_t t = 0; t < answers[i].mask.size(); ++t) {
        const auto loss_at = [&](double shift) {
          std::vector<Answer> moved = answers;
          moved[i].logprobs[t] += shift;
          return grpo_loss(config, packed(moved), scale).loss.item<double>();
        };
        const double slope = (loss_at(kStep) - loss_at(-kStep)) / (2 * kStep);
        EXPECT_NEAR(exact.gradients[i][static_cast<int64_t>(t)].item<double>(), slope, 1e-8) << i << "," << t;
        compared += slope != 0;
      }
    EXPECT_GT(compared, 3);
  }
}

TEST(Grpo, WithoutOldLogprobsTheRatioIsOneAndItsGradientRemains) {
  const std::vector<Answer> answers = random_answers(6);
  const GrpoConfig config = config_of(R"({"correction": {"mode": "off"}})");
  LossBatch batch = packed(answers);
  batch.old_logprobs = at::Tensor();
  const LossScale scale = grpo_scale(config, batch);
  const LossResult result = grpo_loss(config, batch, scale);
  result.loss.backward();
  EXPECT_NEAR(result.metrics.values().at("ratio_mean"), 1, 1e-12);
  const Sequences seq(batch.lengths, batch.logprobs.numel());
  const at::Tensor expected = -seq.spread(batch.advantages) * batch.mask / scale.num_tokens;
  EXPECT_LT(largest_difference(gradient_of(batch.logprobs), expected), 1e-12);
}

TEST(Grpo, BypassTakesTheGeneratorsLogprobsAsOld) {
  const std::vector<Answer> answers = random_answers(7);
  const GrpoConfig bypass = config_of(R"({"old_policy": "behaviour", "correction": {"mode": "off"}})");
  const GrpoConfig plain = config_of(R"({"correction": {"mode": "off"}})");
  std::vector<Answer> replaced = answers;
  for (Answer& a : replaced) a.old = a.behaviour;
  const LossScale scale = scale_of(plain, answers);
  EXPECT_NEAR(run(bypass, answers, scale).loss, run(plain, replaced, scale).loss, 1e-12);
}

TEST(Grpo, RejectedTokensStayInTheDenominator) {
  std::vector<Answer> answers = random_answers(8, 4);
  for (Answer& a : answers) a.behaviour = a.old;
  answers[0].behaviour[0] = answers[0].old[0] - 5;  // a ratio of e^5: rejected
  answers[0].mask[0] = 1;
  const GrpoConfig masks = config_of(R"({"correction": {"mode": "mask", "low": 0.5, "high": 2}})");
  const LossScale scale = scale_of(masks, answers);
  const Outcome got = run(masks, answers, scale);
  std::vector<Answer> without = answers;
  without[0].mask[0] = 0;
  EXPECT_NEAR(got.loss, run(masks, without, scale).loss, 1e-12);
  EXPECT_EQ(scale_of(masks, without).num_tokens, scale.num_tokens - 1);
}

TEST(Grpo, ARatioBeyondTheClampIsFiniteAndPullsNoMore) {
  std::vector<Answer> answers = random_answers(9, 3);
  answers[0].mask[0] = 1;
  answers[0].advantage = -1;
  answers[0].old[0] = -500;
  answers[0].behaviour[0] = -500;
  const GrpoConfig config = config_of("{}");
  const Outcome got = run(config, answers, scale_of(config, answers), at::kFloat);
  EXPECT_TRUE(std::isfinite(got.loss));
  EXPECT_EQ(got.gradients[0][0].item<double>(), 0);
}

TEST(Grpo, MeasuresHowFarGeneratorAndLearnerAreApart) {
  std::vector<Answer> answers = random_answers(10, 4);
  for (Answer& a : answers)
    for (std::size_t t = 0; t < a.old.size(); ++t) a.behaviour[t] = a.old[t] - 0.1;
  const GrpoConfig config = config_of("{}");
  const auto values = run(config, answers, scale_of(config, answers)).metrics.values();
  EXPECT_NEAR(values.at("behaviour_logprob_difference"), 0.1, 1e-9);
  EXPECT_NEAR(values.at("behaviour_kl"), std::exp(0.1) - 1 - 0.1, 1e-9);
  EXPECT_NEAR(values.at("importance_weight_mean"), std::exp(0.1), 1e-9);
  EXPECT_EQ(values.at("importance_rejected_fraction"), 0);
}

TEST(Grpo, TheReferenceIsMeasuredWithoutBetaAndCarriesNoGradient) {
  const std::vector<Answer> answers = random_answers(11);
  const GrpoConfig with = config_of("{}");
  LossBatch batch = packed(answers);
  const LossScale scale = grpo_scale(with, batch);
  const LossResult measured = grpo_loss(with, batch, scale);
  EXPECT_GT(measured.metrics.values().at("kl"), 0);
  batch.reference_logprobs = at::Tensor();
  EXPECT_EQ(grpo_loss(with, batch, scale).loss.item<double>(), measured.loss.item<double>());
}

void expect_refused(const GrpoConfig& config, const LossBatch& batch, const std::string& words) {
  try {
    grpo_loss(config, batch, LossScale{.num_tokens = 1, .num_sequences = 1});
    FAIL() << "accepted, expected: " << words;
  } catch (const std::invalid_argument& error) {
    EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
  }
}

TEST(Grpo, RefusesBatchesThatDoNotFit) {
  const GrpoConfig config;
  const auto changed = [](auto change) {
    LossBatch batch = packed(random_answers(12));
    change(batch);
    return batch;
  };
  const auto one = at::ones({1}, at::kDouble);
  expect_refused(config, changed([&](LossBatch& b) { b.old_logprobs = one; }), "old_logprobs: expected");
  expect_refused(config, changed([&](LossBatch& b) { b.advantages = one; }), "advantages: expected");
  expect_refused(config, changed([&](LossBatch& b) { b.mask = one; }), "mask: expected");
  expect_refused(config, changed([&](LossBatch& b) { b.lengths = b.lengths + 1; }), "lengths: they sum to");
  expect_refused(config, changed([&](LossBatch& b) { b.lengths = b.lengths - 4; }), "lengths: a negative length");
  expect_refused(config, changed([&](LossBatch& b) { b.reference_logprobs = b.reference_logprobs.to(at::kFloat); }),
                 "reference_logprobs: expected");
  expect_refused(config, changed([&](LossBatch& b) { b.logprobs = at::Tensor(); }), "logprobs: expected");
}

TEST(Grpo, RefusesBatchesThatLackWhatTheSettingsNeed) {
  LossBatch batch = packed(random_answers(13));
  batch.reference_logprobs = batch.behaviour_logprobs = batch.entropy = at::Tensor();
  GrpoConfig config;
  config.kl_beta = 0.1;
  expect_refused(config, batch, "reference_logprobs, which kl_beta");
  config = {};
  config.entropy_coef = 0.1;
  expect_refused(config, batch, "entropy, which entropy_coef");
  config = {};
  config.old_policy = OldPolicy::kBehaviour;
  expect_refused(config, batch, "behaviour_logprobs");
  config = {};
  config.loss_type = LossType::kDrGrpo;
  expect_refused(config, batch, "max_completion_length");
}

TEST(LossMetrics, GoBetweenProcessesToTheBit) {
  LossMetrics sent;
  sent.add_mean("loss", 1.0 / 3, 7);
  sent.add_mean("never", std::numeric_limits<double>::quiet_NaN(), 0);
  sent.add_deviation("ratio_std", 3, 5.0 / 3, 7);
  sent.add_total("num_tokens", 1e300);
  sent.add_max("response_length_max", -std::numeric_limits<double>::infinity());
  LossMetrics received;
  received.add_text(sent.text());
  EXPECT_EQ(received.values(), sent.values());
  EXPECT_EQ(received.values().at("loss"), 1.0 / 3 / 7);
  received.add_text(sent.text());
  EXPECT_EQ(received.values().at("num_tokens"), 2e300);
  for (const char* wrong : {"m", "mloss", "mloss 1", "mloss 1 2 3", "mloss one two"})
    EXPECT_THROW(received.add_text(wrong), std::invalid_argument) << wrong;
}

}  // namespace
}  // namespace troupe
