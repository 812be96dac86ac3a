// What is done to one row: norm, embedding, heads turned and put into the cache.
#pragma once

#include "core/generate/body_elements.hpp"

namespace troupe::kernels {
namespace {

template <class S>
inline float inverse_rms(const float* x, int64_t n, int64_t true_n, float eps) {
  auto squares = S::zero();
  for (int64_t i = 0; i < n; i += 16) {
    const auto v = S::load(x + i);
    squares = S::fma(v, v, squares);
  }
  return 1.0f / __builtin_sqrtf(S::reduce_add(squares) / static_cast<float>(true_n) + eps);
}

template <class S, class E>
void rms_norm(const float* x, const float* weight, int64_t n, int64_t true_n, float eps, void* out) {
  const auto scale = S::set1(inverse_rms<S>(x, n, true_n, eps));
  auto* to = static_cast<typename E::T*>(out);
  for (int64_t i = 0; i < n; i += 16) E::store(to + i, S::mul(S::mul(S::load(x + i), scale), S::load(weight + i)));
}

template <class E>
void unpack_row(const void* w, int64_t k, int64_t token, float* out) {
  using T = typename E::T;
  const T* from = static_cast<const T*>(w) + token / kPanelCols * k * kPanelCols + token % kPanelCols * E::kStep;
  for (int64_t s = 0; s < k; s += E::kStep, from += kPanelCols * E::kStep) {
    for (int64_t i = 0; i < E::kStep; ++i) {
      if constexpr (E::kStep == 1) {
        out[s] = from[0];
      } else {
        const uint32_t bits = static_cast<uint32_t>(from[i]) << 16;
        std::memcpy(out + s + i, &bits, 4);
      }
    }
  }
}

inline constexpr int64_t kMaxHeadDim = 512;

// Normalises (when norm is given) and rotates one head: the pair of dimension i is i + head_dim / 2.
template <class S>
inline void rotate_head(const PlaceCall& c, const float* head, const float* norm, float* out) {
  alignas(64) float values[kMaxHeadDim];
  const float scale = norm ? inverse_rms<S>(head, c.head_dim_padded, c.head_dim, c.norm_eps) : 1.0f;
  for (int64_t i = 0; i < c.head_dim_padded; i += 16) {
    auto v = S::load(head + i);
    if (norm) v = S::mul(S::mul(v, S::set1(scale)), S::load(norm + i));
    S::store(values + i, v);
    S::store(out + i, v);
  }
  const int64_t half = c.head_dim / 2;
  for (int64_t i = 0; i < half; ++i) {
    out[i] = values[i] * c.cos[i] - values[i + half] * c.sin[i];
    out[i + half] = values[i + half] * c.cos[i] + values[i] * c.sin[i];
  }
}

template <class S, class E>
void place_qkv(const PlaceCall& c) {
  using T = typename E::T;
  alignas(64) float rotated[kMaxHeadDim];
  const int64_t d = c.head_dim_padded, block = kPageTokens * d;
  T* q_out = static_cast<T*>(c.q_out);
  for (int64_t h = 0; h < c.num_heads; ++h) {
    rotate_head<S>(c, c.qkv + h * d, c.q_norm, rotated);
    for (int64_t i = 0; i < d; i += 16) E::store(q_out + h * d + i, S::load(rotated + i));
  }
  const float* keys = c.qkv + c.num_heads * d;
  const float* values = keys + c.num_kv_heads * d;
  for (int64_t h = 0; h < c.num_kv_heads; ++h) {
    T* key_block = static_cast<T*>(c.page) + 2 * h * block;
    T* value_block = key_block + block;
    rotate_head<S>(c, keys + h * d, c.k_norm, rotated);
    for (int64_t i = 0; i < d; ++i) {
      E::store_one(key_block + (i / E::kStep * kPageTokens + c.slot) * E::kStep + i % E::kStep, rotated[i]);
    }
    for (int64_t i = 0; i < d; i += 16) E::store(value_block + c.slot * d + i, S::load(values + h * d + i));
  }
}

}  // namespace
}  // namespace troupe::kernels
