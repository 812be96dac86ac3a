#include "core/train/token_logprobs.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

namespace troupe {
namespace {

constexpr int64_t kRows = 200, kHidden = 32, kVocab = 301;
constexpr double kTemperature = 0.7;

struct Inputs {
  at::Tensor hidden, weight, targets, dlogprobs, dentropy;
  explicit Inputs(at::ScalarType type = at::kFloat) {
    at::manual_seed(1);
    hidden = at::randn({kRows, kHidden}).to(type).requires_grad_();
    weight = (at::randn({kVocab, kHidden}) * 0.5).to(type);
    targets = at::randint(0, kVocab, {kRows}, at::kLong);
    dlogprobs = at::randn({kRows});
    dentropy = at::randn({kRows});
  }
};

struct Results {
  at::Tensor logprobs, entropy, dhidden, dweight;
};

Results chunked(const Inputs& in, int64_t chunk_bytes, int64_t keep_bytes) {
  const ParameterView head{in.weight, at::zeros({kVocab, kHidden})};
  const at::Tensor hidden = in.hidden.detach().requires_grad_();
  const TokenLogProbs out = token_logprobs(
      hidden, head, in.targets, {.temperature = kTemperature, .chunk_bytes = chunk_bytes, .keep_bytes = keep_bytes});
  torch::autograd::backward({(out.logprobs * in.dlogprobs).sum() + (out.entropy * in.dentropy).sum()}, {});
  return {out.logprobs.detach(), out.entropy.detach(), hidden.grad(), head.grad};
}

// log_softmax over all logits at once, in float64.
Results reference(const Inputs& in) {
  const at::Tensor hidden = in.hidden.detach().to(at::kDouble).requires_grad_();
  const at::Tensor weight = in.weight.to(at::kDouble).requires_grad_();
  const at::Tensor log_p = at::log_softmax(at::mm(hidden, weight.t()) / kTemperature, -1);
  const at::Tensor logprobs = log_p.gather(1, in.targets.unsqueeze(1)).squeeze(1);
  const at::Tensor entropy = -(log_p.exp() * log_p).sum(-1);
  torch::autograd::backward({(logprobs * in.dlogprobs).sum() + (entropy * in.dentropy).sum()}, {});
  return {logprobs.detach(), entropy.detach(), hidden.grad(), weight.grad()};
}

double error(const at::Tensor& a, const at::Tensor& b) {
  return ((a.to(at::kDouble) - b).abs().max() / b.abs().max()).item<double>();
}

TEST(TokenLogProbs, EqualLogSoftmaxWhateverIsKept) {
  const Inputs in;
  const Results expected = reference(in);
  const int64_t row = kVocab * 4;
  for (auto [chunk, keep] : {std::pair<int64_t, int64_t>{1 << 30, 1 << 30}, {64 * row, 0}, {64 * row, 130 * row}}) {
    const Results actual = chunked(in, chunk, keep);
    EXPECT_LT(error(actual.logprobs, expected.logprobs), 1e-6);
    EXPECT_LT(error(actual.entropy, expected.entropy), 1e-6);
    EXPECT_LT(error(actual.dhidden, expected.dhidden), 1e-5);
    EXPECT_LT(error(actual.dweight, expected.dweight), 1e-5);
  }
}

TEST(TokenLogProbs, KeepingOrComputingAgainGivesTheSameBits) {
  for (at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const Inputs in(type);
    const int64_t row = kVocab * 4;
    const Results kept = chunked(in, 64 * row, 1 << 30), again = chunked(in, 64 * row, 0);
    EXPECT_TRUE(at::equal(kept.logprobs, again.logprobs));
    EXPECT_TRUE(at::equal(kept.dhidden, again.dhidden));
    EXPECT_TRUE(at::equal(kept.dweight, again.dweight));
  }
}

TEST(TokenLogProbs, Bfloat16LogitsAreNotRounded) {
  const Inputs in(at::kBFloat16);
  const Results actual = chunked(in, 1 << 30, 1 << 30), expected = reference(in);
  EXPECT_LT(error(actual.logprobs, expected.logprobs), 1e-5);
  EXPECT_LT(error(actual.entropy, expected.entropy), 1e-5);
  EXPECT_LT(error(actual.dhidden, expected.dhidden), 0.02);
  EXPECT_LT(error(actual.dweight, expected.dweight), 0.02);
}

TEST(TokenLogProbs, RefusesWhatDoesNotFit) {
  const Inputs in;
  const ParameterView head{in.weight, {}};
  EXPECT_THROW(token_logprobs(in.hidden, head, in.targets.slice(0, 1)), std::invalid_argument);
  EXPECT_THROW(token_logprobs(in.hidden.slice(1, 1), head, in.targets), std::invalid_argument);
  EXPECT_THROW(token_logprobs(in.hidden.to(at::kBFloat16), head, in.targets), std::invalid_argument);
  EXPECT_THROW(token_logprobs(in.hidden, head, in.targets + kVocab), std::invalid_argument);
  EXPECT_THROW(token_logprobs(in.hidden, head, in.targets, {.temperature = 0}), std::invalid_argument);
}

TEST(TokenLogProbs, OfNoRowsAreNone) {
  const Inputs in;
  const TokenLogProbs out = token_logprobs(in.hidden.slice(0, 0, 0), {in.weight, {}}, in.targets.slice(0, 0, 0));
  EXPECT_EQ(out.logprobs.numel(), 0);
}

}  // namespace
}  // namespace troupe
