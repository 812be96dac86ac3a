// The parts of a layer that are no matrix product, forward and backward, over rows of tensors: on the CPU by the row
// kernels over all threads, elsewhere by tensor operations. S rows; T is the compute dtype.
#pragma once

#include <ATen/core/Tensor.h>

namespace troupe {

// residual [S, D] float32 += delta [S, D] T (when defined); y [S, D] T = RMSNorm(residual) * weight [D] T. Kept for the
// backward pass when defined: normalised [S, D] T, reciprocal_rms [S] float32.
void add_norm(at::Tensor& residual, const at::Tensor& delta, const at::Tensor& weight, double eps,
              at::Tensor& normalised, at::Tensor& reciprocal_rms, at::Tensor& y);

// y [S, D] = normalised * weight: what add_norm gave.
void norm_output(const at::Tensor& normalised, const at::Tensor& weight, at::Tensor& y);

// dresidual [S, D] float32 += the norm's part; copy [S, D] T = dresidual (may be the same tensor when T is float32);
// dweight [D] float32 is added to when defined.
void norm_backward(const at::Tensor& dy, const at::Tensor& normalised, const at::Tensor& reciprocal_rms,
                   const at::Tensor& weight, at::Tensor& dresidual, at::Tensor& copy, at::Tensor dweight);

// gate_up [S, 2 I]: gate | up; y [S, I] = weight * silu(gate) * up; weight float32 [S], undefined: 1.
void swiglu(const at::Tensor& gate_up, at::Tensor& y, const at::Tensor& weight = {});
// y holds d loss / d y: becomes y itself; gate_up becomes its gradient; dweight float32 [S] is written when defined.
void swiglu_backward(at::Tensor& gate_up, at::Tensor& y, const at::Tensor& weight = {}, at::Tensor dweight = {});

// sum [V, D] float32: row ids[s] += x[s] (float32), in the order of s.
void add_rows(at::Tensor sum, const at::Tensor& ids, const at::Tensor& x);

// y [R, D] = x[ids[r]]; ids int64 [R]; -1 (on the CPU alone): zeros.
void gather_rows(const at::Tensor& x, const at::Tensor& ids, at::Tensor& y);
// y [S, D] T = base[s] + x[rows[s, 0]] + x[rows[s, 1]] + ..., added up in float32 in this order. x [R, D] T, rows int64
// [S, J]; base float32 [S, D] or undefined: zero.
void sum_rows(const at::Tensor& base, const at::Tensor& x, const at::Tensor& rows, at::Tensor& y);

}  // namespace troupe
