// Causal attention over packed sequences with grouped queries, from the fused projection to the heads' outputs:
// optional RMSNorm on queries and keys, rotation, softmax(q k^T / sqrt(head_dim)) v. No token sees another sequence but
// the one that its own continues.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "core/models/parameter_arena.hpp"
#include "core/models/rope.hpp"

namespace troupe {

struct AttentionShape {
  int64_t num_heads, num_kv_heads, head_dim;
  double norm_eps;
};

// What one pass has in common over all layers.
struct AttentionInput {
  const AttentionShape& shape;
  const RopeTable& rope;                   // of the S tokens
  const std::vector<int32_t>& cu_seqlens;  // [B + 1]
  const std::vector<int32_t>& continues;   // [B] or empty, see PackedTokens
};

// Norms on queries and keys [head_dim]; undefined values: none.
struct HeadNorms {
  ParameterView query, key;
};

// qkv [S, (H + 2 KV) * head_dim] as projected; out [S, H * head_dim] is written; log_sum float32 [H, S] (log of each
// softmax's denominator, for the backward pass) is written when defined.
void attention_forward(const AttentionInput& input, const HeadNorms& norms, const at::Tensor& qkv, at::Tensor& out,
                       at::Tensor& log_sum);

// dqkv [S, (H + 2 KV) * head_dim] is written; gradients of the norms are added to.
void attention_backward(const AttentionInput& input, const HeadNorms& norms, const at::Tensor& qkv,
                        const at::Tensor& out, const at::Tensor& log_sum, const at::Tensor& dout, at::Tensor& dqkv);

// The same by tensor operations, on any device: the reference of the block kernels, and what other devices run.
at::Tensor plain_attention(const AttentionInput& input, const at::Tensor& query_norm, const at::Tensor& key_norm,
                           const at::Tensor& qkv);

// Whether this machine has the block kernels for these shapes.
bool has_block_attention(const AttentionShape& shape, const at::Tensor& qkv);

}  // namespace troupe
