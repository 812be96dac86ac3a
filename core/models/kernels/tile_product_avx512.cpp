// Compiled for AVX-512 with BF16; called only where tile_product.cpp finds it.
#include <algorithm>

#include "core/models/kernels/tile_product.hpp"
#include "core/models/kernels/tile_squares.hpp"

namespace troupe::tiles {
namespace {

// A packed block, of either operand, is rows of 32 words: a number of K each, or in bfloat16 a pair of them.
template <class T>
constexpr int64_t kStepRows = kStep / 4 * int64_t{sizeof(T)};

inline void store(const Rows& rows, float* out) {
  for (int64_t r = 0; r < kSquare; ++r) _mm512_store_si512(out + r * kBlock, rows.row[r]);
}

void pack_step(const Operand<float>& x, int64_t first, int64_t count, int64_t k, int64_t inner, float* out) {
  for (int64_t end = k + kStep; k < end; k += kSquare, out += kSquare * kBlock) {
    const Square square = x.inner_first ? Square{x.data + first * x.stride + k, x.stride, count - first, inner - k}
                                        : Square{x.data + k * x.stride + first, x.stride, inner - k, count - first};
    square.fetch(kStep);
    Rows rows;
    for (int64_t r = 0; r < kSquare; ++r) rows.row[r] = square.row(r);
    if (x.inner_first) transpose(rows);
    store(rows, out);
  }
}

void pack_step(const Operand<Bf16>& x, int64_t first, int64_t count, int64_t k, int64_t inner, float* out) {
  store(pairs<false>(x, first, count, k, inner), out);
}

template <class T>
void pack(const Operand<T>& x, int64_t count, int64_t inner, std::byte* block) {
  float* out = reinterpret_cast<float*>(block);
  for (int64_t k = 0; k < inner; k += kStep, out += kStepRows<T> * kBlock) {
    pack_step(x, 0, count, k, inner, out);
    pack_step(x, kSquare, count, k, inner, out + kSquare);
  }
}

inline __m512 multiply_add(float, __m512 x, __m512 y, __m512 sum) {
  return _mm512_fmadd_ps(x, y, sum);
}
inline __m512 multiply_add(Bf16, __m512 x, __m512 y, __m512 sum) {
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(x), reinterpret_cast<__m512bh>(y));
}

constexpr int64_t kRows = 8;     // of a tile, at once: 16 sums in registers
constexpr int64_t kDepth = 256;  // rows of two blocks that stay in the first-level cache; of so many sums begin at zero

// 8 rows of a tile, `depth` rows of the blocks.
template <class T>
inline void multiply_rows(const float* left, const float* right, int64_t depth, float* out, int64_t stride, bool add) {
  __m512 sums[kRows][2] = {};
  for (int64_t k = 0; k < depth; ++k, left += kBlock, right += kBlock) {
    const __m512 low = _mm512_load_ps(right), high = _mm512_load_ps(right + 16);
    for (int64_t r = 0; r < kRows; ++r) {
      const __m512 x = _mm512_set1_ps(left[r]);
      sums[r][0] = multiply_add(T{}, x, low, sums[r][0]);
      sums[r][1] = multiply_add(T{}, x, high, sums[r][1]);
    }
  }
  for (int64_t r = 0; r < kRows; ++r)
    for (int64_t half = 0; half < 2; ++half) {
      float* const place = out + r * stride + half * 16;
      _mm512_storeu_ps(place, add ? _mm512_add_ps(_mm512_loadu_ps(place), sums[r][half]) : sums[r][half]);
    }
}

template <class T>
void multiply(const std::byte* left_block, const std::byte* right_block, int64_t steps, float* out, int64_t stride,
              bool add, const float* next) {
  const float* left = reinterpret_cast<const float*>(left_block);
  const float* right = reinterpret_cast<const float*>(right_block);
  const int64_t depth = steps * kStepRows<T>;
  for (int64_t r = 0; r < kBlock; ++r) {
    _mm_prefetch(next + r * stride, _MM_HINT_T1);
    _mm_prefetch(next + r * stride + 16, _MM_HINT_T1);
  }
  for (int64_t k = 0; k < depth; k += kDepth)
    for (int64_t r = 0; r < kBlock; r += kRows)
      multiply_rows<T>(left + k * kBlock + r, right + k * kBlock, std::min(kDepth, depth - k), out + r * stride, stride,
                       add || k > 0);
}

template <class T>
constexpr Typed<T> kTyped = {.step_bytes = 4 * kBlock* kStepRows<T>,
                             .most_steps = 640 / kStepRows<T>,
                             .pack_left = pack<T>,
                             .pack_right = pack<T>,
                             .multiply = multiply<T>};

}  // namespace

extern const Kernels kernels_avx512;
const Kernels kernels_avx512 = {kTyped<float>, kTyped<Bf16>, [] {}, [] {}};

}  // namespace troupe::tiles
