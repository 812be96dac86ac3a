// A linear layer over rows, y = x W^T + bias, with the adapters on parts of its output; forward and backward.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "core/models/parameter_arena.hpp"

namespace troupe::trunk {

// Adds scale * (x A^T) B^T to columns [begin, begin + rows) of the output.
struct LinearAdapter {
  ParameterView a;  // [rank, in]
  ParameterView b;  // [rows, rank]
  int64_t begin, rows;
  double scale;
};

struct Linear {
  ParameterView weight;  // [out, in]
  ParameterView bias;    // [out] or undefined
  std::vector<LinearAdapter> adapters;

  // y [S, out] is written.
  void forward(const at::Tensor& x, at::Tensor& y, bool adapted) const;
  // dx [S, in] is written.
  void backward_input(const at::Tensor& dy, at::Tensor& dx, bool adapted) const;
  // Adds to the gradients of whatever is trained.
  void backward_weight(const at::Tensor& x, const at::Tensor& dy, bool adapted) const;
};

}  // namespace troupe::trunk
