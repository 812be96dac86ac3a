// Losses over preference pairs against published values, gradients against autograd of the plain formula.
#include "core/algorithms/preference.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

namespace troupe {
namespace {

// MiniMind's golden vector: beta 0.1, two pairs of three positions; scored tokens only.
const std::vector<int64_t> kCounts{2, 3, 3, 1};  // chosen 0, chosen 1, rejected 0, rejected 1

at::Tensor pairs(const std::vector<float>& x, bool mean) {
  const at::Tensor sums = sequence_sums(at::tensor(x), kCounts, mean);  // [chosen 0, chosen 1, rejected 0, rejected 1]
  return sums.view({2, 2}).t().contiguous();
}

double loss_of(bool mean) {
  const std::vector<float> reference{-1, -2, -1.5F, -1, -2, -2, -2, -2, -1};
  const std::vector<float> policy{-0.9F, -1.8F, -1.4F, -1, -1, -2.2F, -2, -2, -1.3F};
  return dpo_loss(pairs(policy, mean), pairs(reference, mean), 0.1).loss.mean().item<double>();
}

TEST(Dpo, EqualsTheGoldenVectors) {
  EXPECT_NEAR(loss_of(true), 0.6713709, 1e-6);
  EXPECT_NEAR(loss_of(false), 0.6470274, 1e-6);
}

TEST(Dpo, BeginsAtLogTwo) {
  const at::Tensor x = at::randn({5, 2});
  EXPECT_NEAR(dpo_loss(x, x, 0.3).loss.mean().item<double>(), std::log(2.0), 1e-6);
}

TEST(Dpo, ItsGradientIsThatOfTheFormula) {
  at::manual_seed(1);
  at::Tensor policy = at::randn({6, 2}, at::kDouble).requires_grad_();
  const at::Tensor reference = at::randn({6, 2}, at::kDouble);
  const double beta = 0.7, smoothing = 0.2;
  torch::autograd::backward({dpo_loss(policy, reference, beta, smoothing).loss.sum()}, {});
  const at::Tensor margin =
      beta * ((policy.select(1, 0) - policy.select(1, 1)) - (reference.select(1, 0) - reference.select(1, 1))).detach();
  // d/dm (-(1 - s) log sigmoid(m) - s log sigmoid(-m)) = -(1 - s) sigmoid(-m) + s sigmoid(m)
  const at::Tensor d = beta * (smoothing * margin.sigmoid() - (1 - smoothing) * (-margin).sigmoid());
  EXPECT_TRUE(at::allclose(policy.grad(), at::stack({d, -d}, 1), 1e-12, 1e-12));
}

TEST(Dpo, StaysFiniteFarOut) {
  const at::Tensor far = at::tensor({-1e4F, 1e4F}).view({1, 2});
  const PairLosses losses = dpo_loss(far, at::zeros({1, 2}), 1.0);
  EXPECT_NEAR(losses.loss.item<double>(), 2e4, 1);
  EXPECT_NEAR(losses.margin.item<double>(), -2e4, 1);
}

TEST(RewardPairs, WantTheMarginBetweenTheScores) {
  const at::Tensor scores = at::tensor({2.0F, 0.5F, -1.0F, 0.0F}).view({2, 2});
  const PairLosses plain = reward_pair_loss(scores), wide = reward_pair_loss(scores, 1.5);
  EXPECT_NEAR(plain.loss[0].item<double>(), std::log1p(std::exp(-1.5)), 1e-6);
  EXPECT_NEAR(plain.loss[1].item<double>(), std::log1p(std::exp(1.0)), 1e-6);
  EXPECT_NEAR(wide.loss[0].item<double>(), std::log(2.0), 1e-6);
  EXPECT_NEAR(plain.margin[1].item<double>(), -1.0, 1e-6);
}

TEST(SequenceSums, RefuseCountsThatDoNotAddUp) {
  EXPECT_THROW(sequence_sums(at::zeros({5}), {2, 2}), std::invalid_argument);
  EXPECT_THROW(dpo_loss(at::zeros({4}), at::zeros({4}), 0.1), std::invalid_argument);
}

TEST(SequenceSums, ASequenceWithoutTokensIsZero) {
  EXPECT_TRUE(at::equal(sequence_sums(at::tensor({1.0F, 2.0F}), {0, 2, 0}), at::tensor({0.0F, 3.0F, 0.0F})));
}

}  // namespace
}  // namespace troupe
