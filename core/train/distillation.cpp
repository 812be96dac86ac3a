#include "core/train/distillation.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "core/models/layer_ops.hpp"
#include "core/models/matrix_product.hpp"

namespace troupe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// One call: its inputs, and what its backward pass needs.
struct Call : torch::CustomClassHolder {
  at::Tensor student;  // [N, D]
  ParameterView head;
  at::Tensor teacher, teacher_head, targets;
  DistillationOptions options;
  at::Tensor cross_entropy, divergence;  // float32 [N]
  at::Tensor gradient;                   // [N, V] compute dtype: d loss_i / d logits_i; undefined: not differentiable
};

void run_forward(Call& call) {
  at::NoGradGuard no_grad;
  const int64_t rows = call.student.size(0), vocab = call.head.value.size(0);
  const int64_t row_bytes = vocab * static_cast<int64_t>(sizeof(float));
  const int64_t chunk = std::min(rows, std::max<int64_t>(16, call.options.chunk_bytes / row_bytes));
  const double t = call.options.temperature, alpha = call.options.alpha;
  const auto wide = call.student.options().dtype(at::kFloat).requires_grad(false);
  call.cross_entropy = at::empty({rows}, wide);
  call.divergence = at::empty({rows}, wide);
  at::Tensor student_memory = at::empty({chunk, vocab}, wide), teacher_memory = at::empty({chunk, vocab}, wide);
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t end = std::min(begin + chunk, rows);
    at::Tensor z = student_memory.narrow(0, 0, end - begin), z_teacher = teacher_memory.narrow(0, 0, end - begin);
    wide_product(call.student.slice(0, begin, end), call.head.value, z);
    wide_product(call.teacher.slice(0, begin, end), call.teacher_head, z_teacher);
    const at::Tensor target = call.targets.slice(0, begin, end).unsqueeze(1);
    const at::Tensor log_p = at::log_softmax(z, 1), log_p_t = at::log_softmax(z / t, 1);
    const at::Tensor log_q = at::log_softmax(z_teacher / t, 1), q = log_q.exp();
    call.cross_entropy.slice(0, begin, end).copy_(-log_p.gather(1, target).squeeze(1));
    call.divergence.slice(0, begin, end).copy_((q * (log_q - log_p_t)).sum(1).mul_(t * t));
    if (!call.gradient.defined()) continue;
    // a (p - onehot) + (1 - a) T (p_T - q)
    at::Tensor gradient = log_p.exp().mul_(alpha);
    gradient.scatter_add_(1, target, at::full(target.sizes(), -alpha, gradient.options()));
    gradient.add_(log_p_t.exp().sub_(q), (1 - alpha) * t);
    call.gradient.slice(0, begin, end).copy_(gradient);
  }
}

struct DistillationFunction : torch::autograd::Function<DistillationFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& student, c10::intrusive_ptr<Call> call) {
    call->student = student.detach();
    run_forward(*call);
    ctx->saved_data["call"] = at::IValue::make_capsule(call);
    return call->options.alpha * call->cross_entropy + (1 - call->options.alpha) * call->divergence;
  }
  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    at::NoGradGuard no_grad;
    auto call = c10::static_intrusive_pointer_cast<Call>(ctx->saved_data["call"].toCapsule());
    if (!call->gradient.defined())
      throw std::runtime_error("distillation_terms: a second backward pass through the same call");
    const at::Tensor dlogits = std::exchange(call->gradient, {}).mul_(gradients[0].unsqueeze(1));
    if (call->head.grad.defined()) add_product(call->head.grad, dlogits, call->student);
    return {at::mm(dlogits, call->head.value), at::Tensor()};
  }
};

void check_inputs(const Call& call) {
  const auto require = [](bool holds, const std::string& what) {
    if (!holds) throw std::invalid_argument("distillation_terms: " + what);
  };
  const auto fits = [](const at::Tensor& hidden, const at::Tensor& head) {
    return hidden.dim() == 2 && head.dim() == 2 && hidden.size(1) == head.size(1) &&
           hidden.scalar_type() == head.scalar_type();
  };
  require(fits(call.student, call.head.value), "the student's states and output projection do not fit");
  require(fits(call.teacher, call.teacher_head), "the teacher's states and output projection do not fit");
  require(call.teacher_head.size(0) == call.head.value.size(0) && call.teacher.size(0) == call.student.size(0),
          "teacher and student differ in rows");
  require(call.targets.dim() == 1 && call.targets.scalar_type() == at::kLong &&
              call.targets.size(0) == call.student.size(0),
          "targets must be int64 [" + std::to_string(call.student.size(0)) + "]");
  require(call.options.temperature > 0, "temperature must be positive");
  require(call.options.alpha >= 0 && call.options.alpha <= 1, "alpha must lie between 0 and 1");
}

}  // namespace

DistillationTerms distillation_terms(const at::Tensor& student, const ParameterView& student_head,
                                     const at::Tensor& teacher, const at::Tensor& teacher_head,
                                     const at::Tensor& targets, const DistillationOptions& options) {
  auto call = c10::make_intrusive<Call>();
  call->student = student.contiguous();
  call->head = student_head;
  call->teacher = teacher.contiguous();
  const int64_t vocab = student_head.value.size(0);
  if (teacher_head.size(0) < vocab)
    throw std::invalid_argument("distillation_terms: the teacher knows " + std::to_string(teacher_head.size(0)) +
                                " tokens, the student " + std::to_string(vocab));
  call->teacher_head = teacher_head.narrow(0, 0, vocab);
  call->targets = targets.contiguous();
  call->options = options;
  check_inputs(*call);
  if (at::GradMode::is_enabled() && student.requires_grad())
    call->gradient = at::empty({student.size(0), vocab}, student.options().requires_grad(false));
  const at::Tensor loss = DistillationFunction::apply(call->student, call);
  return {loss, call->cross_entropy, call->divergence};
}

}  // namespace troupe
