// Compiled for AVX-512 with BF16 and AMX; called only where tile_product.cpp finds them.
#include <immintrin.h>

#include "core/models/kernels/tile_product.hpp"
#include "core/models/kernels/tile_squares.hpp"

namespace troupe::tiles {
namespace {

constexpr int64_t kTileRows = kSquare;
constexpr int64_t kTileBytes = 1024;  // 16 rows of 32 bfloat16 (left), or of 16 columns' pairs (right)

// Of float32 numbers: the nearest that have zeros for a lower half, which are bfloat16 numbers.
inline __m512i nearest_bf16(__m512i x) {
  return _mm512_and_si512(_mm512_add_epi32(x, _mm512_set1_epi32(0x8000)), _mm512_set1_epi32(~0xFFFF));
}
inline __m512i difference(__m512i x, __m512i y) {
  return _mm512_castps_si512(_mm512_sub_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(y)));
}
// The upper halves: (a0, b0), (a1, b1), ...
inline void store_pairs(std::byte* out, __m512i a, __m512i b) {
  constexpr int kOrAnd = 0xF8;  // x | (y & z)
  _mm512_store_si512(out, _mm512_ternarylogic_epi32(_mm512_srli_epi32(a, 16), b, _mm512_set1_epi32(~0xFFFF), kOrAnd));
}

// 16 rows (left) or columns (right) from `first` on, 32 of K from `k` on: one tile of each part. A pair of the unit is
// (k, k + 16).
template <bool kLeft>
inline void pack_tile(const Operand<float>& x, int64_t first, int64_t count, int64_t k, int64_t inner, std::byte* out) {
  const int64_t rows = count - first, depth = inner - k;
  Square low, high;
  if (x.inner_first) {
    low = {x.data + first * x.stride + k, x.stride, rows, depth};
    high = {low.from + 16, x.stride, rows, depth - 16};
  } else {
    low = {x.data + k * x.stride + first, x.stride, depth, rows};
    high = {low.from + 16 * x.stride, x.stride, depth - 16, rows};
  }
  if (x.inner_first || !kLeft) {  // packed next: not gradients by columns, which were written just now
    low.fetch(kStep);
    high.fetch(kStep);
  }
  alignas(64) float turned[2][kTileRows * 16];
  if (x.inner_first != kLeft) {
    low = transposed(low, turned[0]);
    high = transposed(high, turned[1]);
  }
  for (int64_t r = 0; r < kTileRows; ++r) {
    std::byte* const place = out + r * 64;
    const __m512i a = low.row(r), b = high.row(r);
    const __m512i a1 = nearest_bf16(a), b1 = nearest_bf16(b);
    store_pairs(place, a1, b1);
    const __m512i a_rest = difference(a, a1), b_rest = difference(b, b1);
    const __m512i a2 = nearest_bf16(a_rest), b2 = nearest_bf16(b_rest);
    store_pairs(place + 2 * kTileBytes, a2, b2);
    store_pairs(place + 4 * kTileBytes, difference(a_rest, a2), difference(b_rest, b2));  // eight bits are left of each
  }
}

// A pair of the unit is (k, k + 1).
template <bool kLeft>
inline void pack_tile(const Operand<Bf16>& x, int64_t first, int64_t count, int64_t k, int64_t inner, std::byte* out) {
  const Rows tile = pairs<kLeft>(x, first, count, k, inner);
  for (int64_t r = 0; r < kTileRows; ++r) _mm512_store_si512(out + r * 64, tile.row[r]);
}

template <class T>
constexpr int64_t kParts = std::is_same_v<T, float> ? 3 : 1;

// [step][part][two tiles].
template <class T, bool kLeft>
void pack(const Operand<T>& x, int64_t count, int64_t inner, std::byte* out) {
  for (int64_t k = 0; k < inner; k += kStep, out += kParts<T> * 2 * kTileBytes) {
    pack_tile<kLeft>(x, 0, count, k, inner, out);
    pack_tile<kLeft>(x, kTileRows, count, k, inner, out + kTileBytes);
  }
}

// Tiles 0-3: sums, 4-5: rows of left, 6-7: columns of right.
template <int64_t kPartCount>
void multiply(const std::byte* left, const std::byte* right, int64_t steps, float* out, int64_t stride, bool add,
              const float* next) {
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
  constexpr int64_t kPartBytes = 2 * kTileBytes, kStepBytes = kPartCount * kPartBytes;
  constexpr int64_t kProducts = 4 * kPartCount * (kPartCount + 1) / 2, kLines = kStepBytes / 64 / kProducts;
  for (int64_t s = 0; s < steps; ++s, left += kStepBytes, right += kStepBytes) {
    int64_t ahead = kStepBytes;
    // The next step's tiles come nearer while the unit multiplies.
    const auto prefetch = [&] {
      for (int64_t line = 0; line < kLines; ++line, ahead += 64) {
        _mm_prefetch(left + ahead, _MM_HINT_T0);
        _mm_prefetch(right + ahead, _MM_HINT_T0);
      }
    };
    if (s < kTileRows)
      for (int64_t line = 0; line < 4; ++line)
        _mm_prefetch(reinterpret_cast<const char*>(next + (2 * s + line / 2) * stride + line % 2 * 16), _MM_HINT_T0);
    for (int64_t p = 0; p < kPartCount; ++p) {
      _tile_loadd(4, left + p * kPartBytes, 64);
      _tile_loadd(5, left + p * kPartBytes + kTileBytes, 64);
      for (int64_t q = 0; p + q < kPartCount; ++q) {
        _tile_loadd(6, right + q * kPartBytes, 64);
        _tile_loadd(7, right + q * kPartBytes + kTileBytes, 64);
        _tile_dpbf16ps(0, 4, 6);
        prefetch();
        _tile_dpbf16ps(1, 4, 7);
        prefetch();
        _tile_dpbf16ps(2, 5, 6);
        prefetch();
        _tile_dpbf16ps(3, 5, 7);
        prefetch();
      }
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
constexpr Typed<T> kTyped = {.step_bytes = kParts<T> * 2 * kTileBytes,
                             .most_steps = 60 / kParts<T>,
                             .pack_left = pack<T, true>,
                             .pack_right = pack<T, false>,
                             .multiply = multiply<kParts<T>>};

}  // namespace

extern const Kernels kernels_amx;
const Kernels kernels_amx = {kTyped<float>, kTyped<Bf16>, begin, end};

}  // namespace troupe::tiles
