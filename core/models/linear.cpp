#include "core/models/linear.hpp"

#include <ATen/ATen.h>

#include "core/models/matrix_product.hpp"

namespace troupe::trunk {

void Linear::forward(const at::Tensor& x, at::Tensor& y, bool adapted) const {
  if (bias.value.defined() && y.scalar_type() != at::kFloat) {
    at::addmm_out(y, bias.value, x, weight.value.t());  // rounded once
  } else {
    product_of_rows(x, weight.value, y);
    if (bias.value.defined()) y.add_(bias.value);
  }
  if (!adapted) return;
  for (const LinearAdapter& adapter : adapters) {
    at::Tensor part = y.narrow(1, adapter.begin, adapter.rows);
    part.add_(at::mm(at::mm(x, adapter.a.value.t()), adapter.b.value.t()), adapter.scale);
  }
}

void Linear::backward_input(const at::Tensor& dy, at::Tensor& dx, bool adapted) const {
  product(dy, weight.value, dx);
  if (!adapted) return;
  for (const LinearAdapter& adapter : adapters) {
    const at::Tensor part = dy.narrow(1, adapter.begin, adapter.rows);
    dx.add_(at::mm(at::mm(part, adapter.b.value), adapter.a.value), adapter.scale);
  }
}

void Linear::backward_weight(const at::Tensor& x, const at::Tensor& dy, bool adapted) const {
  if (weight.grad.defined()) add_product(weight.grad, dy, x);
  if (bias.grad.defined()) {
    at::Tensor sum = bias.grad;
    sum.add_(dy.sum(0, false, at::kFloat));
  }
  if (!adapted) return;
  for (const LinearAdapter& adapter : adapters) {
    const at::Tensor part = dy.narrow(1, adapter.begin, adapter.rows);
    add_product(adapter.b.grad, part, at::mm(x, adapter.a.value.t()) * adapter.scale);
    add_product(adapter.a.grad, at::mm(part, adapter.b.value) * adapter.scale, x);
  }
}

}  // namespace troupe::trunk
