#include "core/train/distillation.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

namespace troupe {
namespace {

// States that an identity projection turns into these logits.
ParameterView identity(int64_t vocab) {
  return {at::eye(vocab), at::zeros({vocab, vocab})};
}

// MiniMind's golden vector: T 1.5.
TEST(Distillation, EqualsTheGoldenVectors) {
  const at::Tensor student = at::tensor({1.0F, 2.0F, 3.0F, 0.0F, 0.0F, 0.5F, -1.0F, 2.0F}).view({2, 4});
  const at::Tensor teacher = at::tensor({1.5F, 1.0F, 2.5F, 0.0F, 0.2F, 0.5F, -1.0F, 1.0F}).view({2, 4});
  const DistillationTerms terms =
      distillation_terms(student, identity(4), teacher, at::eye(4), at::tensor({2, 3}, at::kLong), {.alpha = 0.25});
  EXPECT_NEAR(terms.divergence.mean().item<double>(), 0.1362981, 1e-6);
  EXPECT_NEAR(terms.cross_entropy.mean().item<double>(), 0.3912696, 1e-6);
  EXPECT_NEAR(terms.loss.mean().item<double>(), 0.25 * 0.3912696 + 0.75 * 0.1362981, 1e-6);
}

struct Inputs {
  at::Tensor student, teacher, student_head, teacher_head, targets, weight;
  Inputs() {
    at::manual_seed(3);
    student = at::randn({150, 24});
    teacher = at::randn({150, 40});
    student_head = at::randn({211, 24}) * 0.4;
    teacher_head = at::randn({230, 40}) * 0.4;  // knows more tokens
    targets = at::randint(0, 211, {150}, at::kLong);
    weight = at::rand({150});
  }
};

struct Results {
  at::Tensor loss, dhidden, dhead;
};

// The formula over all logits at once, in float64.
Results plain(const Inputs& in, double alpha, double t) {
  const at::Tensor hidden = in.student.to(at::kDouble).requires_grad_();
  const at::Tensor head = in.student_head.to(at::kDouble).requires_grad_();
  const at::Tensor z = at::mm(hidden, head.t());
  const at::Tensor zt = at::mm(in.teacher.to(at::kDouble), in.teacher_head.to(at::kDouble).t()).narrow(1, 0, 211);
  const at::Tensor ce = -at::log_softmax(z, 1).gather(1, in.targets.unsqueeze(1)).squeeze(1);
  const at::Tensor log_q = at::log_softmax(zt / t, 1);
  const at::Tensor kl = (log_q.exp() * (log_q - at::log_softmax(z / t, 1))).sum(1);
  const at::Tensor loss = alpha * ce + (1 - alpha) * t * t * kl;
  torch::autograd::backward({(loss * in.weight).sum()}, {});
  return {loss.detach(), hidden.grad(), head.grad()};
}

Results chunked(const Inputs& in, const DistillationOptions& options) {
  const at::Tensor hidden = in.student.clone().requires_grad_();
  const ParameterView head{in.student_head, at::zeros_like(in.student_head)};
  const DistillationTerms terms = distillation_terms(hidden, head, in.teacher, in.teacher_head, in.targets, options);
  torch::autograd::backward({(terms.loss * in.weight).sum()}, {});
  return {terms.loss.detach(), hidden.grad(), head.grad};
}

double error(const at::Tensor& a, const at::Tensor& b) {
  return ((a.to(at::kDouble) - b).abs().max() / b.abs().max()).item<double>();
}

TEST(Distillation, LossAndGradientsAreThoseOfTheFormulaWhateverTheChunk) {
  const Inputs in;
  for (const double alpha : {0.0, 0.5, 1.0})
    for (const int64_t chunk_bytes : {int64_t{1}, int64_t{1} << 30}) {
      const Results expected = plain(in, alpha, 1.7),
                    actual = chunked(in, {.alpha = alpha, .temperature = 1.7, .chunk_bytes = chunk_bytes});
      EXPECT_LT(error(actual.loss, expected.loss), 1e-5) << alpha;
      EXPECT_LT(error(actual.dhidden, expected.dhidden), 1e-5) << alpha;
      EXPECT_LT(error(actual.dhead, expected.dhead), 1e-5) << alpha;
    }
}

TEST(Distillation, ATeacherLikeTheStudentTeachesNothing) {
  const Inputs in;
  const DistillationTerms terms =
      distillation_terms(in.student, {in.student_head, {}}, in.student, in.student_head, in.targets, {.alpha = 0.0});
  EXPECT_LT(terms.divergence.abs().max().item<double>(), 1e-5);
  EXPECT_FALSE(terms.loss.requires_grad());
}

TEST(Distillation, RefusesWhatDoesNotFit) {
  const Inputs in;
  const ParameterView head{in.student_head, {}};
  const auto attempt = [&](const at::Tensor& teacher, const at::Tensor& teacher_head, DistillationOptions options) {
    distillation_terms(in.student, head, teacher, teacher_head, in.targets, options);
  };
  EXPECT_THROW(attempt(in.teacher, in.teacher_head.narrow(0, 0, 200), {}), std::invalid_argument);
  EXPECT_THROW(attempt(in.teacher.narrow(0, 0, 10), in.teacher_head, {}), std::invalid_argument);
  EXPECT_THROW(attempt(in.teacher, in.teacher_head, {.alpha = 1.5}), std::invalid_argument);
  EXPECT_THROW(attempt(in.teacher, in.teacher_head, {.temperature = 0}), std::invalid_argument);
}

}  // namespace
}  // namespace troupe
