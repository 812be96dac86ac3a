// The products of training, each by the fastest way there is: where this machine has our tile kernels
// (kernels/tile_product.hpp), these in float32 and for gradients of weights; else the library's. Row-major matrices of
// one compute dtype (float32 or bfloat16), last dimension contiguous. Sums are float32. In tiles an element of a
// product of rows does not depend, to the bit, on the other rows.
#pragma once

#include <ATen/core/Tensor.h>

namespace troupe {

// out [M, N] float32 = x [M, K] w[N, K]^T: logits, whose rounding to bfloat16 would show in every log-probability.
// `out` contiguous.
void wide_product(const at::Tensor& x, const at::Tensor& w, at::Tensor& out);

// out [M, N] = x [M, K] w[N, K]^T. `out` of x's dtype.
void product_of_rows(const at::Tensor& x, const at::Tensor& w, at::Tensor& out);

// out [M, K] = dy [M, N] w [N, K]. `out` of dy's dtype.
void product(const at::Tensor& dy, const at::Tensor& w, at::Tensor& out);

// sum [N, K] float32 += a [M, N]^T b [M, K].
void add_product(at::Tensor sum, const at::Tensor& a, const at::Tensor& b);

// Whether the library's small products (cpublas::brgemm) take bfloat16 fast here. Its own question, could_pack, is
// about AMX alone.
bool has_bf16_blocks();

}  // namespace troupe
