// Attention on the CPU in blocks: small matrix products (oneDNN's, AMX or AVX-512) around the row kernels.
#pragma once

#include "core/models/attention.hpp"

namespace troupe {

void block_attention_forward(const AttentionInput& input, const HeadNorms& norms, const at::Tensor& qkv,
                             at::Tensor& out, at::Tensor& log_sum);
void block_attention_backward(const AttentionInput& input, const HeadNorms& norms, const at::Tensor& qkv,
                              const at::Tensor& out, const at::Tensor& log_sum, const at::Tensor& dout,
                              at::Tensor& dqkv);

}  // namespace troupe
