// Products whose result is float32 whatever the operands are: logits, whose rounding to bfloat16 would show in every
// log-probability.
#pragma once

#include <ATen/core/Tensor.h>

namespace troupe {

// out [N, V] float32 = x [N, D] w[V, D]^T; x and w of one compute dtype. `out` contiguous.
void wide_product(const at::Tensor& x, const at::Tensor& w, at::Tensor& out);

}  // namespace troupe
