// Matrix products of packed weights, and what is done with a tile of the result.
#pragma once

#include "core/generate/body_elements.hpp"

namespace troupe::kernels {
namespace {

// `tile`: floats [rows][32] of panel `panel`, first row `row0`.
template <class S, class E>
inline void finish_tile(const GemmCall& c, const float* tile, int64_t rows, int64_t row0, int64_t panel) {
  using F = typename S::F;
  const float* bias = c.bias ? c.bias + panel * kPanelCols : nullptr;
  for (int64_t r = 0; r < rows; ++r) {
    F low = S::load(tile + r * kPanelCols), high = S::load(tile + r * kPanelCols + 16);
    if (bias) {
      low = S::add(low, S::load(bias));
      high = S::add(high, S::load(bias + 16));
    }
    if (c.epilogue == Epilogue::kSwiGlu) {
      auto* out = static_cast<typename E::T*>(c.out) + (row0 + r) * c.out_stride + panel * 16;
      E::store(out, S::mul(silu<S>(low), high));
      continue;
    }
    float* out = static_cast<float*>(c.out) + (row0 + r) * c.out_stride + panel * kPanelCols;
    if (c.epilogue == Epilogue::kAdd) {
      low = S::add(S::load(out), low);
      high = S::add(S::load(out + 16), high);
    }
    S::store(out, low);
    S::store(out + 16, high);
  }
}

// One accumulator per output element, k ascending. The first block of rows meets the weights in memory and fetches them
// ahead (kFetch); the others find them in the cache.
template <class S, class E, int kRows, bool kFetch>
inline void multiply_tile(const typename E::T* x, int64_t x_stride, const typename E::T* w, int64_t k, float* tile) {
  using F = typename S::F;
  F low[kRows], high[kRows];
  for (int r = 0; r < kRows; ++r) low[r] = high[r] = S::zero();
  for (int64_t s = 0; s < k; s += E::kStep) {
    if constexpr (kFetch) {
      __builtin_prefetch(reinterpret_cast<const char*>(w) + S::kPrefetchBytes);
      __builtin_prefetch(reinterpret_cast<const char*>(w) + S::kPrefetchBytes + 64);
    }
    const auto w_low = E::load(w), w_high = E::load(w + 16 * E::kStep);
    w += kPanelCols * E::kStep;
    for (int r = 0; r < kRows; ++r) {
      const auto value = E::broadcast(x + r * x_stride + s);
      low[r] = E::dot(low[r], value, w_low);
      high[r] = E::dot(high[r], value, w_high);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    S::store(tile + r * kPanelCols, low[r]);
    S::store(tile + r * kPanelCols + 16, high[r]);
  }
}

template <class S, class E, int kRows, bool kFetch>
inline void multiply_rows(int64_t rows, const typename E::T* x, int64_t x_stride, const typename E::T* w, int64_t k,
                          float* tile) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return multiply_rows<S, E, kRows - 1, kFetch>(rows, x, x_stride, w, k, tile);
  }
  multiply_tile<S, E, kRows, kFetch>(x, x_stride, w, k, tile);
}

template <class S, class E>
void gemm(const GemmCall& c, int64_t first_panel, int64_t last_panel) {
  using T = typename E::T;
  alignas(64) float tile[S::kRows * kPanelCols];
  // Rows in even shares: 13 rows are 7 + 6, not 12 + 1.
  const int64_t num_blocks = (c.rows + S::kRows - 1) / S::kRows;
  for (int64_t panel = first_panel; panel < last_panel; ++panel) {
    const T* w = static_cast<const T*>(c.w) + panel * c.k * kPanelCols;
    for (int64_t b = 0; b < num_blocks; ++b) {
      const int64_t row0 = c.rows * b / num_blocks, rows = c.rows * (b + 1) / num_blocks - row0;
      const T* x = static_cast<const T*>(c.x) + row0 * c.x_stride;
      if (b == 0) {
        multiply_rows<S, E, S::kRows, true>(rows, x, c.x_stride, w, c.k, tile);
      } else {
        multiply_rows<S, E, S::kRows, false>(rows, x, c.x_stride, w, c.k, tile);
      }
      finish_tile<S, E>(c, tile, rows, row0, panel);
    }
  }
}

}  // namespace
}  // namespace troupe::kernels
