#include "core/train/token_logprobs.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "core/models/kernels/rows.hpp"
#include "core/models/layer_ops.hpp"
#include "core/models/matrix_product.hpp"

namespace troupe {
namespace {

using rows::Bf16;
using rows::RowStatistics;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// One call: its inputs, and what its backward pass needs.
struct Call : torch::CustomClassHolder {
  at::Tensor hidden;  // [N, D]
  ParameterView head;
  at::Tensor targets;  // int64 [N]
  float inverse_temperature = 1;
  int64_t chunk_rows = 0, kept_chunks = 0;
  bool differentiable = false, consumed = false;
  at::Tensor logprobs, log_sums, entropy;  // float32 [N]
  std::vector<at::Tensor> kept;            // logits of the first chunks, float32
  std::shared_ptr<Workspace> memory;       // of logits and their gradients

  int64_t rows() const { return hidden.size(0); }
  at::Tensor chunk(const at::Tensor& x, int64_t begin) const {
    return x.slice(0, begin, std::min(begin + chunk_rows, rows()));
  }
  // [count, V]
  at::Tensor take(int64_t count, at::ScalarType type) const {
    const std::vector<int64_t> shape = {count, head.value.size(0)};
    return memory ? memory->take(shape, type) : at::empty(shape, hidden.options().dtype(type));
  }
};

// Statistics of every row of logits [n, V], of rows [begin, begin + n) of the call.
void fill_statistics(Call& call, const at::Tensor& logits, int64_t begin) {
  if (!logits.is_cpu()) {
    const at::Tensor z = logits * call.inverse_temperature, log_sum = z.logsumexp(-1);
    const at::Tensor log_p = z - log_sum.unsqueeze(-1);
    call.chunk(call.log_sums, begin).copy_(log_sum);
    call.chunk(call.logprobs, begin).copy_(log_p.gather(1, call.chunk(call.targets, begin).unsqueeze(1)).squeeze(1));
    call.chunk(call.entropy, begin).copy_(at::special_entr(log_p.exp()).sum(-1));
    return;
  }
  const int64_t vocab = logits.size(1);
  const float* row = logits.const_data_ptr<float>();
  const int64_t* target = call.targets.const_data_ptr<int64_t>() + begin;
  float *logprob = call.logprobs.mutable_data_ptr<float>() + begin,
        *sum = call.log_sums.mutable_data_ptr<float>() + begin,
        *entropy = call.entropy.mutable_data_ptr<float>() + begin;
  at::parallel_for(0, logits.size(0), 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const RowStatistics s =
          rows::kernels().logit_statistics(row + i * vocab, vocab, call.inverse_temperature, target[i]);
      logprob[i] = s.logprob, sum[i] = s.log_sum, entropy[i] = s.entropy;
    }
  });
}

template <class T>
void fill_gradient_rows(const Call& call, at::Tensor& logits, int64_t begin, const at::Tensor& dlogprobs,
                        const at::Tensor& dentropy, at::Tensor& gradient) {
  const int64_t vocab = logits.size(1);
  const float *row = logits.const_data_ptr<float>(), *logprob = call.logprobs.const_data_ptr<float>() + begin,
              *sum = call.log_sums.const_data_ptr<float>() + begin,
              *entropy = call.entropy.const_data_ptr<float>() + begin, *dl = dlogprobs.const_data_ptr<float>() + begin,
              *dh = dentropy.const_data_ptr<float>() + begin;
  const int64_t* target = call.targets.const_data_ptr<int64_t>() + begin;
  T* out = static_cast<T*>(gradient.mutable_data_ptr());
  at::parallel_for(0, logits.size(0), 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i)
      rows::kernels().typed<T>().logit_gradient(row + i * vocab, vocab, call.inverse_temperature, target[i],
                                                {logprob[i], sum[i], entropy[i]}, dl[i], dh[i], out + i * vocab);
  });
}

// d loss / d logits in the compute dtype: in place of the logits when that is float32, else in `narrow`.
at::Tensor logit_gradient(const Call& call, at::Tensor& logits, int64_t begin, const at::Tensor& dlogprobs,
                          const at::Tensor& dentropy, const at::Tensor& narrow) {
  const at::ScalarType type = call.hidden.scalar_type();
  if (!logits.is_cpu()) {
    const at::Tensor log_p = logits * call.inverse_temperature - call.chunk(call.log_sums, begin).unsqueeze(-1);
    const at::Tensor p = log_p.exp(), dl = call.chunk(dlogprobs, begin).unsqueeze(-1);
    const at::Tensor surprise = at::where(p > 0, log_p + call.chunk(call.entropy, begin).unsqueeze(-1), 0.0);
    at::Tensor gradient = -p * (dl + call.chunk(dentropy, begin).unsqueeze(-1) * surprise);
    gradient.scatter_add_(1, call.chunk(call.targets, begin).unsqueeze(1), dl.contiguous());
    return gradient.mul_(call.inverse_temperature).to(type);
  }
  at::Tensor gradient = type == at::kFloat ? logits : narrow.narrow(0, 0, logits.size(0));
  if (type == at::kFloat)
    fill_gradient_rows<float>(call, logits, begin, dlogprobs, dentropy, gradient);
  else
    fill_gradient_rows<Bf16>(call, logits, begin, dlogprobs, dentropy, gradient);
  return gradient;
}

void run_forward(Call& call) {
  at::NoGradGuard no_grad;
  at::Tensor shared;  // of the chunks that are not kept
  for (int64_t begin = 0; begin < call.rows(); begin += call.chunk_rows) {
    const at::Tensor hidden = call.chunk(call.hidden, begin);
    const bool keep = call.differentiable && static_cast<int64_t>(call.kept.size()) < call.kept_chunks;
    if (keep) call.kept.push_back(call.take(hidden.size(0), at::kFloat));
    if (!keep && !shared.defined()) shared = call.take(hidden.size(0), at::kFloat);
    at::Tensor logits = keep ? call.kept.back() : shared.narrow(0, 0, hidden.size(0));
    wide_product(hidden, call.head.value, logits);
    fill_statistics(call, logits, begin);
  }
  if (!call.differentiable) call.memory.reset();
}

at::Tensor run_backward(Call& call, const at::Tensor& dlogprobs, const at::Tensor& dentropy) {
  at::NoGradGuard no_grad;
  if (std::exchange(call.consumed, true))
    throw std::runtime_error("token_logprobs: a second backward pass through the same call");
  at::Tensor dhidden = at::empty_like(call.hidden), shared, narrow;
  const int64_t largest = std::min(call.chunk_rows, call.rows());
  if (call.hidden.scalar_type() != at::kFloat) narrow = call.take(largest, call.hidden.scalar_type());
  for (int64_t begin = 0; begin < call.rows(); begin += call.chunk_rows) {
    const at::Tensor hidden = call.chunk(call.hidden, begin);
    const size_t index = static_cast<size_t>(begin / call.chunk_rows);
    at::Tensor logits;
    if (index < call.kept.size()) {
      logits = call.kept[index];
    } else {
      if (!shared.defined()) shared = call.take(largest, at::kFloat);
      logits = shared.narrow(0, 0, hidden.size(0));
      wide_product(hidden, call.head.value, logits);
    }
    const at::Tensor gradient = logit_gradient(call, logits, begin, dlogprobs, dentropy, narrow);
    at::Tensor out = call.chunk(dhidden, begin);
    product(gradient, call.head.value, out);
    if (call.head.grad.defined()) add_product(call.head.grad, gradient, hidden);
  }
  call.kept.clear();
  call.memory.reset();
  return dhidden;
}

struct TokenLogProbsFunction : torch::autograd::Function<TokenLogProbsFunction> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& hidden, c10::intrusive_ptr<Call> call) {
    call->hidden = hidden.detach();
    run_forward(*call);
    ctx->saved_data["call"] = at::IValue::make_capsule(call);
    return {call->logprobs.clone(), call->entropy.clone()};
  }
  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    auto call = c10::static_intrusive_pointer_cast<Call>(ctx->saved_data["call"].toCapsule());
    return {run_backward(*call, gradients[0].contiguous(), gradients[1].contiguous()), at::Tensor()};
  }
};

void check_inputs(const at::Tensor& hidden, const ParameterView& head, const at::Tensor& targets,
                  const TokenLogProbOptions& options) {
  const auto require = [](bool holds, const std::string& what) {
    if (!holds) throw std::invalid_argument("token_logprobs: " + what);
  };
  require(head.value.defined() && head.value.dim() == 2, "the output projection must be [V, D]");
  require(hidden.dim() == 2 && hidden.size(1) == head.value.size(1) && hidden.scalar_type() == head.value.scalar_type(),
          "hidden states must be [N, " + std::to_string(head.value.size(1)) + "] of the output projection's dtype");
  require(targets.dim() == 1 && targets.scalar_type() == at::kLong && targets.size(0) == hidden.size(0),
          "targets must be int64 [" + std::to_string(hidden.size(0)) + "]");
  require(options.temperature > 0, "temperature is " + std::to_string(options.temperature) + ", expected > 0");
  require(options.chunk_bytes > 0 && options.keep_bytes >= 0, "chunk_bytes must be positive, keep_bytes not negative");
  if (targets.numel() == 0) return;
  const auto [low, high] = targets.aminmax();
  require(low.item<int64_t>() >= 0 && high.item<int64_t>() < head.value.size(0),
          "a target lies outside the vocabulary of " + std::to_string(head.value.size(0)));
}

}  // namespace

TokenLogProbs token_logprobs(const at::Tensor& hidden, const ParameterView& head, const at::Tensor& targets,
                             const TokenLogProbOptions& options) {
  check_inputs(hidden, head, targets, options);
  auto call = c10::make_intrusive<Call>();
  call->hidden = hidden.contiguous();
  call->head = head;
  call->targets = targets.contiguous();
  if (options.memory) call->memory = options.memory->lease();
  call->inverse_temperature = static_cast<float>(1.0 / options.temperature);
  const int64_t row_bytes = head.value.size(0) * static_cast<int64_t>(sizeof(float));
  call->chunk_rows = std::max<int64_t>(64, options.chunk_bytes / row_bytes / 64 * 64);
  call->kept_chunks = options.keep_bytes / (call->chunk_rows * row_bytes);
  if (call->rows() * row_bytes <= options.keep_bytes) call->kept_chunks = call->rows();
  call->differentiable = at::GradMode::is_enabled() && hidden.requires_grad();
  for (at::Tensor* x : {&call->logprobs, &call->log_sums, &call->entropy})
    *x = at::empty({hidden.size(0)}, hidden.options().dtype(at::kFloat).requires_grad(false));
  const variable_list out = TokenLogProbsFunction::apply(call->hidden, call);
  return {out[0], out[1]};
}

}  // namespace troupe
