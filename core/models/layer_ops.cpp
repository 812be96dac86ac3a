#include "core/models/layer_ops.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cstring>
#include <vector>

#include "core/models/kernels/rows.hpp"

namespace troupe {
namespace {

using rows::Bf16;

// Elements a thread should have at least, so that handing out work costs nothing beside it.
constexpr int64_t kGrain = 16384;

template <class Work>
void for_rows(int64_t count, int64_t width, const Work& work) {
  at::parallel_for(0, count, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, width)), work);
}

template <class T>
const T* read(const at::Tensor& x) {
  return x.defined() ? static_cast<const T*>(x.const_data_ptr()) : nullptr;
}
template <class T>
T* write(const at::Tensor& x) {
  return x.defined() ? static_cast<T*>(x.mutable_data_ptr()) : nullptr;
}

// Calls f with float or Bf16 as the compute dtype says.
template <class F>
void with_type(at::ScalarType type, const F& f) {
  if (type == at::kFloat) return f(float{});
  if (type == at::kBFloat16) return f(Bf16{});
  throw std::invalid_argument(std::string("compute dtype ") + c10::toString(type) + ": expected Float or BFloat16");
}

template <class T>
void add_norm_rows(at::Tensor& residual, const at::Tensor& delta, const at::Tensor& weight, double eps,
                   at::Tensor& normalised, at::Tensor& reciprocal_rms, at::Tensor& y) {
  const auto& row = rows::kernels().typed<T>();
  const int64_t n = residual.size(1);
  float *x = write<float>(residual), *rms = write<float>(reciprocal_rms);
  const T *d = read<T>(delta), *w = read<T>(weight);
  T *kept = write<T>(normalised), *out = write<T>(y);
  for_rows(residual.size(0), n, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      const float reciprocal = row.add_norm(x + s * n, d ? d + s * n : nullptr, w, static_cast<float>(eps), n,
                                            kept ? kept + s * n : nullptr, out + s * n);
      if (rms) rms[s] = reciprocal;
    }
  });
}

template <class T>
void norm_backward_rows(const at::Tensor& dy, const at::Tensor& normalised, const at::Tensor& reciprocal_rms,
                        const at::Tensor& weight, at::Tensor& dresidual, at::Tensor& copy, at::Tensor& dweight) {
  const auto& row = rows::kernels().typed<T>();
  const int64_t count = dy.size(0), n = dy.size(1);
  // A fixed number of partial sums: the bits do not depend on which thread takes which rows.
  constexpr int64_t kParts = 16;
  const int64_t per_part = (count + kParts - 1) / kParts;
  const at::Tensor partial = dweight.defined() ? at::zeros({kParts, n}, at::kFloat) : at::Tensor();
  const T *g = read<T>(dy), *x = read<T>(normalised), *w = read<T>(weight);
  const float* rms = read<float>(reciprocal_rms);
  float *dx = write<float>(dresidual), *sums = write<float>(partial);
  T* dx_copy = write<T>(copy);
  at::parallel_for(0, kParts, 1, [&](int64_t part_begin, int64_t part_end) {
    for (int64_t part = part_begin; part < part_end; ++part)
      for (int64_t s = part * per_part; s < std::min(count, (part + 1) * per_part); ++s)
        row.norm_backward(g + s * n, x + s * n, w, rms[s], n, dx + s * n, dx_copy + s * n,
                          sums ? sums + part * n : nullptr);
  });
  if (dweight.defined()) dweight.add_(partial.sum(0));
}

// Rows of gate | up with their result.
template <class T, class Work>
void for_gate_rows(const at::Tensor& gate_up, at::Tensor& y, const Work& work) {
  const int64_t n = y.size(1);
  T *both = write<T>(gate_up), *out = write<T>(y);
  for_rows(y.size(0), n, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) work(s, both + s * 2 * n, both + s * 2 * n + n, n, out + s * n);
  });
}

}  // namespace

void add_norm(at::Tensor& residual, const at::Tensor& delta, const at::Tensor& weight, double eps,
              at::Tensor& normalised, at::Tensor& reciprocal_rms, at::Tensor& y) {
  if (residual.is_cpu())
    return with_type(y.scalar_type(), [&](auto type) {
      add_norm_rows<decltype(type)>(residual, delta, weight, eps, normalised, reciprocal_rms, y);
    });
  if (delta.defined()) residual.add_(delta);
  const at::Tensor reciprocal = residual.pow(2).mean(-1).add(eps).rsqrt();
  const at::Tensor unit = (residual * reciprocal.unsqueeze(-1)).to(y.scalar_type());
  if (normalised.defined()) normalised.copy_(unit);
  if (reciprocal_rms.defined()) reciprocal_rms.copy_(reciprocal);
  at::mul_out(y, unit, weight);
}

void norm_output(const at::Tensor& normalised, const at::Tensor& weight, at::Tensor& y) {
  if (!y.is_cpu()) {
    at::mul_out(y, normalised, weight);
    return;
  }
  with_type(y.scalar_type(), [&]<class T>(T) {
    const auto& row = rows::kernels().typed<T>();
    const int64_t n = y.size(1);
    const T *x = read<T>(normalised), *w = read<T>(weight);
    T* out = write<T>(y);
    for_rows(y.size(0), n, [&](int64_t begin, int64_t end) {
      for (int64_t s = begin; s < end; ++s) row.scale(x + s * n, w, n, out + s * n);
    });
  });
}

void norm_backward(const at::Tensor& dy, const at::Tensor& normalised, const at::Tensor& reciprocal_rms,
                   const at::Tensor& weight, at::Tensor& dresidual, at::Tensor& copy, at::Tensor dweight) {
  if (dy.is_cpu())
    return with_type(dy.scalar_type(), [&](auto type) {
      norm_backward_rows<decltype(type)>(dy, normalised, reciprocal_rms, weight, dresidual, copy, dweight);
    });
  const at::Tensor gradient = dy.to(at::kFloat), unit = normalised.to(at::kFloat), scaled = gradient * weight;
  dresidual.add_((scaled - unit * (scaled * unit).mean(-1, true)) * reciprocal_rms.unsqueeze(-1));
  if (!copy.is_same(dresidual)) copy.copy_(dresidual);
  if (dweight.defined()) dweight.add_((gradient * unit).sum(0));
}

void swiglu(const at::Tensor& gate_up, at::Tensor& y, const at::Tensor& weight) {
  if (!y.is_cpu()) {
    const int64_t n = y.size(1);
    const at::Tensor product = at::silu(gate_up.narrow(1, 0, n).to(at::kFloat)) * gate_up.narrow(1, n, n);
    y.copy_(weight.defined() ? product * weight.unsqueeze(1) : product);
    return;
  }
  const float* w = read<float>(weight);
  with_type(y.scalar_type(), [&]<class T>(T) {
    const auto work = rows::kernels().typed<T>().swiglu;
    for_gate_rows<T>(gate_up, y, [&](int64_t s, const T* gate, const T* up, int64_t n, T* out) {
      work(gate, up, w ? w[s] : 1.0f, n, out);
    });
  });
}

void swiglu_backward(at::Tensor& gate_up, at::Tensor& y, const at::Tensor& weight, at::Tensor dweight) {
  if (!y.is_cpu()) {
    const int64_t n = y.size(1);
    at::Tensor gate = gate_up.narrow(1, 0, n), up = gate_up.narrow(1, n, n);
    const at::Tensor g = gate.to(at::kFloat), u = up.to(at::kFloat), dy = y.to(at::kFloat);
    const at::Tensor s = at::sigmoid(g), silu = g * s, product = silu * u;
    const at::Tensor d = weight.defined() ? dy * weight.unsqueeze(1) : dy;
    if (dweight.defined()) dweight.copy_((dy * product).sum(1));
    gate.copy_(d * u * s * (1 + g * (1 - s)));
    up.copy_(d * silu);
    y.copy_(weight.defined() ? product * weight.unsqueeze(1) : product);
    return;
  }
  const float* w = read<float>(weight);
  float* dw = write<float>(dweight);
  with_type(y.scalar_type(), [&]<class T>(T) {
    const auto work = rows::kernels().typed<T>().swiglu_backward;
    for_gate_rows<T>(gate_up, y, [&](int64_t s, T* gate, T* up, int64_t n, T* out) {
      const float gradient = work(gate, up, w ? w[s] : 1.0f, out, n);
      if (dw) dw[s] = gradient;
    });
  });
}

void add_rows(at::Tensor sum, const at::Tensor& ids, const at::Tensor& x) {
  if (!sum.is_cpu()) {
    sum.index_add_(0, ids, x);
    return;
  }
  const int64_t n = sum.size(1), count = ids.size(0);
  const int64_t* id = ids.const_data_ptr<int64_t>();
  const float* from = read<float>(x);
  float* to = write<float>(sum);
  // Threads take columns: every row is summed in the order of the tokens.
  at::parallel_for(0, n, 64, [&](int64_t begin, int64_t end) {
    for (int64_t s = 0; s < count; ++s)
      rows::kernels().f32.accumulate(to + id[s] * n + begin, from + s * n + begin, end - begin);
  });
}

void gather_rows(const at::Tensor& x, const at::Tensor& ids, at::Tensor& y) {
  if (!y.is_cpu()) {
    at::index_select_out(y, x, 0, ids);
    return;
  }
  const auto bytes = static_cast<size_t>(x.size(1)) * x.element_size();
  const int64_t* id = ids.const_data_ptr<int64_t>();
  const auto* from = static_cast<const std::byte*>(x.const_data_ptr());
  auto* to = static_cast<std::byte*>(y.mutable_data_ptr());
  for_rows(ids.size(0), x.size(1), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      std::byte* row = to + static_cast<size_t>(r) * bytes;
      if (id[r] < 0)
        std::memset(row, 0, bytes);
      else
        std::memcpy(row, from + static_cast<size_t>(id[r]) * bytes, bytes);
    }
  });
}

void sum_rows(const at::Tensor& base, const at::Tensor& x, const at::Tensor& rows, at::Tensor& y) {
  const int64_t n = y.size(1), terms = rows.size(1);
  if (!y.is_cpu()) {
    const at::Tensor sum = x.index_select(0, rows.view({-1})).view({-1, terms, n}).sum(1, false, at::kFloat);
    y.copy_(base.defined() ? sum + base : sum);
    return;
  }
  const int64_t* row = rows.const_data_ptr<int64_t>();
  const float* start = read<float>(base);
  with_type(y.scalar_type(), [&]<class T>(T) {
    const auto& kernel = rows::kernels().typed<T>();
    const T* from = read<T>(x);
    T* to = write<T>(y);
    for_rows(y.size(0), n * terms, [&](int64_t begin, int64_t end) {
      std::vector<float> sum(static_cast<size_t>(n));
      for (int64_t s = begin; s < end; ++s) {
        if (start)
          std::copy_n(start + s * n, n, sum.begin());
        else
          std::fill(sum.begin(), sum.end(), 0.0f);
        for (int64_t j = 0; j < terms; ++j) kernel.accumulate(sum.data(), from + row[s * terms + j] * n, n);
        kernel.store(sum.data(), 1.0f, n, to + s * n);
      }
    });
  });
}

}  // namespace troupe
