// Attention of a few rows over the pages of one sequence: scores, softmax, mixed values; two passes over the keys.
#pragma once

#include "core/generate/body_elements.hpp"

namespace troupe::kernels {
namespace {

inline constexpr int kAttendRows = 4;
inline constexpr float kMasked = -1e30f;

// Rows of one attention pass: (token, head) pairs with their number of visible keys.
template <class T>
struct AttendRows {
  const T* q[kAttendRows];
  T* out[kAttendRows];
  int64_t num_keys[kAttendRows];
};

template <class S, class E, int R>
inline void score_keys(const AttendCall& c, const AttendRows<typename E::T>& rows, int64_t num_keys, int64_t stride) {
  using T = typename E::T;
  using F = typename S::F;
  const F scale = S::set1(c.scale);
  for (int64_t t = 0; t < num_keys; t += kPageTokens) {
    const T* cache = static_cast<const T*>(c.cache);
    const T* keys = cache + c.pages[t / kPageTokens] * c.page_stride;
    // Meanwhile the next page's keys and this page's values, needed later, come from memory.
    const T* next_keys = cache + c.pages[t + kPageTokens < num_keys ? t / kPageTokens + 1 : 0] * c.page_stride;
    const T* values = keys + kPageTokens * c.head_dim_padded;
    F acc[R];
    for (int r = 0; r < R; ++r) acc[r] = S::zero();
    for (int64_t i = 0; i < c.head_dim_padded; i += E::kStep) {
      __builtin_prefetch(next_keys + i * kPageTokens);
      __builtin_prefetch(values + i * kPageTokens);
      const auto k = E::load(keys + i * kPageTokens);
      for (int r = 0; r < R; ++r) acc[r] = E::dot(acc[r], E::broadcast(rows.q[r] + i), k);
    }
    for (int r = 0; r < R; ++r) S::store(c.scratch + r * stride + t, S::mul(acc[r], scale));
  }
}

// Turns a row of scores into exponentials (0 where masked) and returns their sum.
template <class S>
inline float soften(float* scores, int64_t num_keys, int64_t padded) {
  for (int64_t t = num_keys; t < padded; ++t) scores[t] = kMasked;
  auto top = S::set1(kMasked);
  for (int64_t t = 0; t < padded; t += 16) top = S::max(top, S::load(scores + t));
  const auto max = S::set1(S::reduce_max(top));
  auto sum = S::zero();
  for (int64_t t = 0; t < padded; t += 16) {
    const auto e = exponential<S>(S::sub(S::load(scores + t), max));
    S::store(scores + t, e);
    sum = S::add(sum, e);
  }
  return S::reduce_add(sum);
}

// B blocks of 16 dimensions from `dim` on.
template <class S, class E, int R, int B>
inline void mix_values(const AttendCall& c, const AttendRows<typename E::T>& rows, int64_t num_keys, int64_t stride,
                       int64_t dim, const float* sums) {
  using T = typename E::T;
  using F = typename S::F;
  F acc[R][B];
  for (int r = 0; r < R; ++r)
    for (int b = 0; b < B; ++b) acc[r][b] = S::zero();
  for (int64_t t = 0; t < num_keys;) {
    const T* page = static_cast<const T*>(c.cache) + c.pages[t / kPageTokens] * c.page_stride;
    const T* v = page + kPageTokens * c.head_dim_padded + dim;
    const int64_t end = t + kPageTokens < num_keys ? t + kPageTokens : num_keys;
    for (; t < end; ++t, v += c.head_dim_padded) {
      F value[B];
      for (int b = 0; b < B; ++b) value[b] = E::widen(v + 16 * b);
      for (int r = 0; r < R; ++r) {
        const F p = S::set1(c.scratch[r * stride + t]);
        for (int b = 0; b < B; ++b) acc[r][b] = S::fma(p, value[b], acc[r][b]);
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    const F inverse = S::set1(1.0f / sums[r]);
    for (int b = 0; b < B; ++b) E::store(rows.out[r] + dim + 16 * b, S::mul(acc[r][b], inverse));
  }
}

template <class S, class E, int R>
inline void attend_rows(const AttendCall& c, const AttendRows<typename E::T>& rows) {
  const int64_t num_keys = rows.num_keys[R - 1];  // ascending: the last row sees the most
  const int64_t stride = (num_keys + 15) / 16 * 16;
  score_keys<S, E, R>(c, rows, num_keys, stride);
  float sums[R];
  for (int r = 0; r < R; ++r) sums[r] = soften<S>(c.scratch + r * stride, rows.num_keys[r], stride);
  int64_t dim = 0;
  for (; dim + 64 <= c.head_dim_padded; dim += 64) mix_values<S, E, R, 4>(c, rows, num_keys, stride, dim, sums);
  for (; dim < c.head_dim_padded; dim += 16) mix_values<S, E, R, 1>(c, rows, num_keys, stride, dim, sums);
}

template <class S, class E>
void attend(const AttendCall& c) {
  using T = typename E::T;
  const int64_t total = c.num_tokens * c.num_heads;
  for (int64_t first = 0; first < total; first += kAttendRows) {
    const int64_t n = total - first < kAttendRows ? total - first : kAttendRows;
    AttendRows<T> rows{};
    for (int64_t r = 0; r < n; ++r) {
      const int64_t token = (first + r) / c.num_heads, head = (first + r) % c.num_heads;
      const int64_t offset = token * c.token_stride + head * c.head_dim_padded;
      rows.q[r] = static_cast<const T*>(c.q) + offset;
      rows.out[r] = static_cast<T*>(c.out) + offset;
      rows.num_keys[r] = c.first_position + token + 1;
    }
    switch (n) {
      case 1:
        attend_rows<S, E, 1>(c, rows);
        break;
      case 2:
        attend_rows<S, E, 2>(c, rows);
        break;
      case 3:
        attend_rows<S, E, 3>(c, rows);
        break;
      default:
        attend_rows<S, E, 4>(c, rows);
    }
  }
}

}  // namespace
}  // namespace troupe::kernels
