// Compiled for AVX-512 with BF16 and AMX; called only where tile_product.cpp finds them.
#include <immintrin.h>

#include "core/models/kernels/tile_product.hpp"

namespace troupe::tiles {
namespace {

constexpr int64_t kTileRows = 16;
constexpr int64_t kTileBytes = 1024;  // 16 rows of 32 bfloat16 (left), or of 16 columns' pairs (right)

// 16 rows of 32 bfloat16 numbers: a tile, or one to be transposed as 16 x 16 pairs.
struct Rows {
  __m512i row[kTileRows];
};

inline __m512i widened(__m256i bf16) {
  return _mm512_cvtepu16_epi32(bf16);
}
inline __m256i rounded(__m512 x) {
  return (__m256i)_mm512_cvtneps_pbh(x);
}
inline __m512 value_of(__m256i bf16) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(widened(bf16), 16));
}
inline __m512i joined(__m256i low, __m256i high) {
  return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

// 32 neighbours along K, `count` of which exist, into row r of each part.
inline void read_along(const float* x, int64_t count, int64_t r, Rows* parts) {
  const __mmask16 first = static_cast<__mmask16>(count >= 16 ? 0xFFFF : (1U << count) - 1);
  const __mmask16 second = static_cast<__mmask16>(count >= 32 ? 0xFFFF : count > 16 ? (1U << (count - 16)) - 1 : 0);
  __m512 a = _mm512_maskz_loadu_ps(first, x), b = _mm512_maskz_loadu_ps(second, x + 16);
  for (int64_t p = 0; p < kParts<float>; ++p) {
    const __m256i low = rounded(a), high = rounded(b);
    parts[p].row[r] = joined(low, high);
    a = _mm512_sub_ps(a, value_of(low));
    b = _mm512_sub_ps(b, value_of(high));
  }
}
inline void read_along(const Bf16* x, int64_t count, int64_t r, Rows* parts) {
  const __mmask32 mask = static_cast<__mmask32>(count >= 32 ? 0xFFFFFFFF : (1U << count) - 1);
  parts[0].row[r] = _mm512_maskz_loadu_epi16(mask, x);
}

// 16 columns of row k (even) and k + 1 (odd), as pairs.
inline void read_across(const float* even, const float* odd, __mmask16 columns, int64_t r, Rows* parts) {
  __m512 a = _mm512_maskz_loadu_ps(columns, even);
  __m512 b = odd ? _mm512_maskz_loadu_ps(columns, odd) : _mm512_setzero_ps();
  for (int64_t p = 0; p < kParts<float>; ++p) {
    const __m256i low = rounded(a), high = rounded(b);
    parts[p].row[r] = _mm512_or_si512(widened(low), _mm512_slli_epi32(widened(high), 16));
    a = _mm512_sub_ps(a, value_of(low));
    b = _mm512_sub_ps(b, value_of(high));
  }
}
inline void read_across(const Bf16* even, const Bf16* odd, __mmask16 columns, int64_t r, Rows* parts) {
  const __m256i low = _mm256_maskz_loadu_epi16(columns, even);
  const __m256i high = odd ? _mm256_maskz_loadu_epi16(columns, odd) : _mm256_setzero_si256();
  parts[0].row[r] = _mm512_or_si512(widened(low), _mm512_slli_epi32(widened(high), 16));
}

// 16 x 16 numbers of 32 bits: pairs, quadruples, then quarters of the rows change places.
inline void transpose(Rows& x) {
  __m512i t[kTileRows];
  for (int64_t i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(x.row[i], x.row[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(x.row[i], x.row[i + 1]);
  }
  __m512i u[kTileRows];
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

// 16 rows (left) or columns (right) from `first` on, 32 of K from `k` on: one tile of each part.
template <class T, bool kLeft>
inline void pack_tile(const Operand<T>& x, int64_t first, int64_t count, int64_t k, int64_t inner, std::byte* out) {
  Rows parts[kParts<T>];
  const int64_t left = count - first, depth = inner - k;
  if (x.inner_first) {
    for (int64_t r = 0; r < kTileRows; ++r)
      if (r < left)
        read_along(x.data + (first + r) * x.stride + k, depth, r, parts);
      else
        for (int64_t p = 0; p < kParts<T>; ++p) parts[p].row[r] = _mm512_setzero_si512();
  } else {
    const auto columns = static_cast<__mmask16>(left >= 16 ? 0xFFFF : left > 0 ? (1U << left) - 1 : 0);
    for (int64_t r = 0; r < kTileRows; ++r) {
      const T* even = x.data + (k + 2 * r) * x.stride + first;
      if (2 * r < depth)
        read_across(even, 2 * r + 1 < depth ? even + x.stride : nullptr, columns, r, parts);
      else
        for (int64_t p = 0; p < kParts<T>; ++p) parts[p].row[r] = _mm512_setzero_si512();
    }
  }
  for (int64_t p = 0; p < kParts<T>; ++p) {
    if (x.inner_first != kLeft) transpose(parts[p]);
    for (int64_t r = 0; r < kTileRows; ++r) _mm512_store_si512(out + p * 2 * kTileBytes + r * 64, parts[p].row[r]);
  }
}

// [step][part][two tiles].
template <class T, bool kLeft>
void pack(const Operand<T>& x, int64_t count, int64_t inner, std::byte* out) {
  for (int64_t k = 0; k < inner; k += kStep, out += block_bytes<T>(1)) {
    pack_tile<T, kLeft>(x, 0, count, k, inner, out);
    pack_tile<T, kLeft>(x, kTileRows, count, k, inner, out + kTileBytes);
  }
}

// Tiles 0-3: sums, 4-5: rows of left, 6-7: columns of right.
template <int64_t kPartCount>
void multiply(const std::byte* left, const std::byte* right, int64_t steps, float* out, int64_t stride, bool add) {
  const int64_t bytes = stride * 4;
  float* below = out + kTileRows * stride;
  if (add) {
    _tile_loadd(0, out, bytes);
    _tile_loadd(1, out + 16, bytes);
    _tile_loadd(2, below, bytes);
    _tile_loadd(3, below + 16, bytes);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  constexpr int64_t kPartBytes = 2 * kTileBytes;
  for (int64_t s = 0; s < steps; ++s, left += kPartCount * kPartBytes, right += kPartCount * kPartBytes)
    for (int64_t p = 0; p < kPartCount; ++p) {
      _tile_loadd(4, left + p * kPartBytes, 64);
      _tile_loadd(5, left + p * kPartBytes + kTileBytes, 64);
      for (int64_t q = 0; p + q < kPartCount; ++q) {
        _tile_loadd(6, right + q * kPartBytes, 64);
        _tile_loadd(7, right + q * kPartBytes + kTileBytes, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
  _tile_stored(0, out, bytes);
  _tile_stored(1, out + 16, bytes);
  _tile_stored(2, below, bytes);
  _tile_stored(3, below + 16, bytes);
}

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

void begin() {
  const TileConfig config;
  _tile_loadconfig(&config);
}
void end() {
  _tile_release();
}

template <class T>
constexpr Typed<T> typed() {
  return {pack<T, true>, pack<T, false>, multiply<kParts<T>>};
}

}  // namespace

extern const Kernels kernels_amx;
const Kernels kernels_amx = {typed<float>(), typed<Bf16>(), begin, end};

}  // namespace troupe::tiles
