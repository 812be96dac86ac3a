// Squares of a matrix in AVX-512 registers, for packing. Included only by sources compiled for it.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "core/models/kernels/tile_product.hpp"

namespace troupe::tiles {

constexpr int64_t kSquare = 16;

// 16 rows of 16 numbers of 32 bits: half of a float32 tile, or the pairs of a bfloat16 one.
struct Rows {
  __m512i row[kSquare];
};

// 16 x 16 numbers of 32 bits: pairs, quadruples, then quarters of the rows change places.
inline void transpose(Rows& x) {
  __m512i t[kSquare];
  for (int64_t i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(x.row[i], x.row[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(x.row[i], x.row[i + 1]);
  }
  __m512i u[kSquare];
  for (int64_t i = 0; i < 16; i += 4) {
    u[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    u[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    u[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    u[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  // u[4 g + c], quarter q: column 4 q + c of rows 4 g .. 4 g + 3.
  for (int64_t c = 0; c < 4; ++c) {
    const __m512i low = _mm512_shuffle_i32x4(u[c], u[4 + c], 0x88), high = _mm512_shuffle_i32x4(u[c], u[4 + c], 0xDD);
    const __m512i low2 = _mm512_shuffle_i32x4(u[8 + c], u[12 + c], 0x88),
                  high2 = _mm512_shuffle_i32x4(u[8 + c], u[12 + c], 0xDD);
    x.row[c] = _mm512_shuffle_i32x4(low, low2, 0x88);
    x.row[8 + c] = _mm512_shuffle_i32x4(low, low2, 0xDD);
    x.row[4 + c] = _mm512_shuffle_i32x4(high, high2, 0x88);
    x.row[12 + c] = _mm512_shuffle_i32x4(high, high2, 0xDD);
  }
}

inline __mmask16 first_of_16(int64_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xFFFF : count > 0 ? (1U << count) - 1 : 0);
}

// 16 x 16 numbers of a matrix, `height` rows of `width` of which exist; the others are zeros.
struct Square {
  const float* from;
  int64_t stride, height, width;

  __m512i row(int64_t r) const {
    return r < height ? _mm512_maskz_loadu_epi32(first_of_16(width), from + r * stride) : _mm512_setzero_si512();
  }
  void fetch(int64_t distance) const {
    for (int64_t r = 0; r < kSquare; ++r) _mm_prefetch(from + r * stride + distance, _MM_HINT_T0);
  }
};

// The same, transposed, in `out`.
inline Square transposed(const Square& x, float* out) {
  Rows rows;
  for (int64_t r = 0; r < kSquare; ++r) rows.row[r] = x.row(r);
  transpose(rows);
  for (int64_t r = 0; r < kSquare; ++r) _mm512_store_si512(out + 16 * r, rows.row[r]);
  asm volatile("" ::: "memory");  // two squares at once don't fit into the registers
  return {out, 16, kSquare, 16};
}

// 16 numbers of an operand from `first` on and 32 of K, as 16 x 16 pairs (k, k + 1): a row is a number's pairs, or,
// when not kByNumber, the numbers' pair. What does not exist is zero.
template <bool kByNumber>
inline Rows pairs(const Operand<Bf16>& x, int64_t first, int64_t count, int64_t k, int64_t inner) {
  Rows square;
  const int64_t depth = inner - k;
  if (x.inner_first) {
    const Bf16* from = x.data + first * x.stride + k;
    const auto mask = static_cast<__mmask32>(depth >= 32 ? 0xFFFFFFFF : (1U << depth) - 1);
    for (int64_t r = 0; r < kSquare; ++r)
      square.row[r] = r < count - first ? _mm512_maskz_loadu_epi16(mask, from + r * x.stride) : _mm512_setzero_si512();
  } else {
    const __mmask16 mask = first_of_16(count - first);
    const auto row = [&](int64_t i) {
      const Bf16* from = x.data + (k + i) * x.stride + first;
      return _mm512_cvtepu16_epi32(i < depth ? _mm256_maskz_loadu_epi16(mask, from) : _mm256_setzero_si256());
    };
    for (int64_t r = 0; r < kSquare; ++r)
      square.row[r] = _mm512_or_si512(row(2 * r), _mm512_slli_epi32(row(2 * r + 1), 16));
  }
  if (x.inner_first != kByNumber) transpose(square);
  return square;
}

}  // namespace troupe::tiles
