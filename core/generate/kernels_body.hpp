// The kernels, written once over a vector of 16 floats. Included by one .cpp per instruction set, each compiled with
// its own flags: everything is in an unnamed namespace, and nothing of the standard library is used, so that no
// function compiled for a newer machine can be linked into another file.
//
// S, the instruction set, has: F (16 floats), kRows (rows of a GEMM tile), zero, set1, load, store, add, sub, mul, div,
// max, fma(a, b, c) = a * b + c, round, scale2(p, n) = p * 2^n, keep_above(x, limit, v) = x < limit ? 0 : v,
// reduce_add, reduce_max, load_bf16, store_bf16, and for bfloat16 pairs Pair, load_pair (16 pairs), broadcast_pair,
// dot(acc, a, b).
#pragma once

#include <cstdint>
#include <cstring>

#include "core/generate/kernels.hpp"

namespace troupe::kernels {
namespace {

template <class S>
struct Float32 {
  using T = float;
  using Vector = typename S::F;
  static constexpr int64_t kStep = 1;
  static Vector load(const T* p) { return S::load(p); }
  static Vector broadcast(const T* p) { return S::set1(*p); }
  static typename S::F dot(typename S::F acc, Vector a, Vector b) { return S::fma(a, b, acc); }
  static typename S::F widen(const T* p) { return S::load(p); }
  static void store(T* p, typename S::F v) { S::store(p, v); }
  static void store_one(T* p, float v) { *p = v; }
};

inline uint16_t round_to_bf16(float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, 4);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>((bits >> 16) | 0x40);  // a NaN stays one
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

template <class S>
struct BFloat16 {
  using T = uint16_t;
  using Vector = typename S::Pair;
  static constexpr int64_t kStep = 2;
  static Vector load(const T* p) { return S::load_pair(p); }
  static Vector broadcast(const T* p) { return S::broadcast_pair(p); }
  static typename S::F dot(typename S::F acc, Vector a, Vector b) { return S::dot(acc, a, b); }
  static typename S::F widen(const T* p) { return S::load_bf16(p); }
  static void store(T* p, typename S::F v) { S::store_bf16(p, v); }
  static void store_one(T* p, float v) { *p = round_to_bf16(v); }
};

// Cephes' expf: range reduction by ln 2 in two parts, polynomial of degree 6. Relative error below 2.4e-7; 0 below
// -87.3. A NaN stays one: max and min give their second operand when either is.
template <class S>
inline typename S::F exponential(typename S::F x) {
  using F = typename S::F;
  const F limited = S::min(S::set1(88.0f), S::max(S::set1(-87.33f), x));
  const F n = S::round(S::mul(limited, S::set1(1.44269504088896341f)));
  F r = S::fma(n, S::set1(-0.693359375f), limited);
  r = S::fma(n, S::set1(2.12194440e-4f), r);
  F p = S::set1(1.9875691500e-4f);
  p = S::fma(p, r, S::set1(1.3981999507e-3f));
  p = S::fma(p, r, S::set1(8.3334519073e-3f));
  p = S::fma(p, r, S::set1(4.1665795894e-2f));
  p = S::fma(p, r, S::set1(1.6666665459e-1f));
  p = S::fma(p, r, S::set1(5.0000001201e-1f));
  p = S::fma(S::mul(p, r), r, S::add(r, S::set1(1.0f)));
  return S::keep_above(x, S::set1(-87.33f), S::scale2(p, n));
}

template <class S>
inline typename S::F silu(typename S::F g) {
  const auto one = S::set1(1.0f);
  return S::div(g, S::add(one, exponential<S>(S::sub(S::zero(), g))));
}

// ---- GEMM -----------------------------------------------------------------------------------------------------------

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

// ---- rows -----------------------------------------------------------------------------------------------------------

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

// ---- attention ------------------------------------------------------------------------------------------------------

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

// ---- logits ---------------------------------------------------------------------------------------------------------

template <class S>
BlockStats logit_stats(const float* logits, int64_t n, float inverse_temperature) {
  auto top = S::load(logits);
  for (int64_t i = 16; i < n; i += 16) top = S::max(top, S::load(logits + i));
  const float max = S::reduce_max(top);
  const auto scale = S::set1(inverse_temperature), shift = S::set1(max);
  auto sum = S::zero();
  for (int64_t i = 0; i < n; i += 16) {
    sum = S::add(sum, exponential<S>(S::mul(S::sub(S::load(logits + i), shift), scale)));
  }
  return {max, S::reduce_add(sum)};
}

template <class S>
void exponentials(const float* logits, int64_t n, float max, float inverse_temperature, float* out) {
  const auto scale = S::set1(inverse_temperature), shift = S::set1(max);
  for (int64_t i = 0; i < n; i += 16) {
    S::store(out + i, exponential<S>(S::mul(S::sub(S::load(logits + i), shift), scale)));
  }
}

template <class S, class E>
constexpr KernelTable make_table(const char* name) {
  return {.name = name,
          .bf16 = E::kStep == 2,
          .gemm = gemm<S, E>,
          .rms_norm = rms_norm<S, E>,
          .place_qkv = place_qkv<S, E>,
          .attend = attend<S, E>,
          .unpack_row = unpack_row<E>,
          .logit_stats = logit_stats<S>,
          .exponentials = exponentials<S>};
}

}  // namespace
}  // namespace troupe::kernels
