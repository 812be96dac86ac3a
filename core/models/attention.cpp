#include "core/models/attention.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/grad_mode.h>

#include "core/models/block_attention.hpp"
#include "core/models/matrix_product.hpp"

namespace troupe {
namespace {

at::Tensor norm_heads(const at::Tensor& x, const at::Tensor& weight, double eps) {
  if (!weight.defined()) return x;
  const at::Tensor wide = x.to(at::kFloat);
  return (wide * wide.pow(2).mean(-1, true).add(eps).rsqrt()).to(x.scalar_type()) * weight;
}

at::Tensor rotate_heads(const at::Tensor& x, const RopeTable& rope) {
  const int64_t half = x.size(-1) / 2;
  const at::Tensor cos = rope.cos.unsqueeze(1), sin = rope.sin.unsqueeze(1);
  const at::Tensor a = x.slice(-1, 0, half).to(at::kFloat), b = x.slice(-1, half).to(at::kFloat);
  return at::cat({a * cos - b * sin, b * cos + a * sin}, -1).to(x.scalar_type());
}

}  // namespace

at::Tensor plain_attention(const AttentionInput& input, const at::Tensor& query_norm, const at::Tensor& key_norm,
                           const at::Tensor& qkv) {
  const auto [heads, kv_heads, head_dim, eps] = input.shape;
  const int64_t tokens = qkv.size(0);
  const at::Tensor split = qkv.view({tokens, heads + 2 * kv_heads, head_dim});
  const at::Tensor q = rotate_heads(norm_heads(split.slice(1, 0, heads), query_norm, eps), input.rope);
  const at::Tensor k = rotate_heads(norm_heads(split.slice(1, heads, heads + kv_heads), key_norm, eps), input.rope);
  const at::Tensor v = split.slice(1, heads + kv_heads);
  std::vector<at::Tensor> outs;
  for (size_t b = 0; b + 1 < input.cu_seqlens.size(); ++b) {
    const auto rows = [&](const at::Tensor& x, size_t of) {
      return x.slice(0, input.cu_seqlens[of], input.cu_seqlens[of + 1]);
    };
    const bool continues = !input.continues.empty() && input.continues[b] >= 0;
    const auto seen = [&](const at::Tensor& x) {
      const at::Tensor own = rows(x, b);
      const at::Tensor all = continues ? at::cat({rows(x, static_cast<size_t>(input.continues[b])), own}) : own;
      return all.transpose(0, 1).unsqueeze(0);
    };
    const at::Tensor queries = rows(q, b).transpose(0, 1).unsqueeze(0), keys = seen(k);
    at::Tensor mask;  // causal, aligned at the end
    if (continues)
      mask = at::ones({queries.size(2), keys.size(2)}, queries.options().dtype(at::kBool))
                 .tril(keys.size(2) - queries.size(2));
    outs.push_back(at::scaled_dot_product_attention(queries, keys, seen(v),
                                                    continues ? std::optional(mask) : std::nullopt, 0.0,
                                                    /*is_causal=*/!continues, std::nullopt,
                                                    /*enable_gqa=*/heads != kv_heads)
                       .squeeze(0)
                       .transpose(0, 1)
                       .reshape({-1, heads * head_dim}));
  }
  return at::cat(outs);
}

bool has_block_attention(const AttentionShape& shape, const at::Tensor& qkv) {
  if (!qkv.is_cpu() || shape.head_dim % 2 != 0 || !__builtin_cpu_supports("x86-64-v3")) return false;
  return qkv.scalar_type() == at::kFloat || (shape.head_dim % 16 == 0 && has_bf16_blocks());
}

void attention_forward(const AttentionInput& input, const HeadNorms& norms, const at::Tensor& qkv, at::Tensor& out,
                       at::Tensor& log_sum) {
  if (has_block_attention(input.shape, qkv)) return block_attention_forward(input, norms, qkv, out, log_sum);
  at::NoGradGuard no_grad;
  out.copy_(plain_attention(input, norms.query.value, norms.key.value, qkv));
}

void attention_backward(const AttentionInput& input, const HeadNorms& norms, const at::Tensor& qkv,
                        const at::Tensor& out, const at::Tensor& log_sum, const at::Tensor& dout, at::Tensor& dqkv) {
  if (has_block_attention(input.shape, qkv))
    return block_attention_backward(input, norms, qkv, out, log_sum, dout, dqkv);
  at::AutoGradMode grad(true);
  const auto leaf = [](const at::Tensor& x) { return x.defined() ? x.detach().requires_grad_() : x; };
  const at::Tensor x = leaf(qkv), query = leaf(norms.query.value), key = leaf(norms.key.value);
  const bool has_norms = query.defined();
  const std::vector<at::Tensor> inputs =
      has_norms ? std::vector<at::Tensor>{x, query, key} : std::vector<at::Tensor>{x};
  const std::vector<at::Tensor> gradients =
      torch::autograd::grad({plain_attention(input, query, key, x)}, inputs, {dout});
  at::NoGradGuard no_grad;
  dqkv.copy_(gradients[0]);
  if (has_norms && norms.query.grad.defined()) {
    at::Tensor query_grad = norms.query.grad, key_grad = norms.key.grad;
    query_grad.add_(gradients[1]);
    key_grad.add_(gradients[2]);
  }
}

}  // namespace troupe
