// Matrix products on the AMX tile unit: out [M, N] (+)= left [M, K] right [K, N], sums in float32.
//
// The unit multiplies bfloat16. A float32 operand is taken as the sum of three bfloat16 numbers, x = x1 + x2 + x3 (each
// the rest rounded to nearest: together 24 bits, all that x has), and of the nine products of two such sums the six
// largest are added up: x1 y1 + x1 y2 + x2 y1 + x1 y3 + x2 y2 + x3 y1. What is left out is below 2^-24 |x y|, the
// rounding of one float32 product. (The decomposition is that of Henry, Tang & Heinecke 2019, "Leveraging the bfloat16
// Artificial Intelligence Datatype For Higher-Precision Computations".) Numbers beyond the largest bfloat16 (3.39e38)
// give NaN; parts below 1.2e-38 count as zero.
//
// Operands are packed first, in blocks of 32 rows (left) or columns (right). An element's sum runs over K in order,
// alone: it does not depend on M, N or the other elements. No tensor library here; any thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/models/kernels/rows.hpp"

namespace troupe::tiles {

using rows::Bf16;

constexpr int64_t kBlock = 32;  // rows or columns of a block
constexpr int64_t kStep = 32;   // of K, multiplied at once

template <class T>
constexpr int64_t kParts = 3;  // float
template <>
constexpr int64_t kParts<Bf16> = 1;

// Bytes of a packed block for so many steps of K.
template <class T>
constexpr int64_t block_bytes(int64_t steps) {
  return steps * kParts<T> * kBlock * kStep * 2;
}

// One operand: element (i, k), i a row of left or a column of right, is data[i * stride + k] or, when not inner_first,
// data[k * stride + i].
template <class T>
struct Operand {
  const T* data;
  int64_t stride;
  bool inner_first;
};

template <class T>
struct Typed {
  // The block of i in [0, count), k in [0, inner), 64-byte-aligned `out`; zeros up to 32 and to whole steps.
  void (*pack_left)(const Operand<T>& x, int64_t count, int64_t inner, std::byte* out);
  void (*pack_right)(const Operand<T>& x, int64_t count, int64_t inner, std::byte* out);
  // out [32, 32], rows `stride` floats apart; `add`: to what is there. Between begin() and end().
  // `next`: the block that this thread multiplies after it, fetched meanwhile; need not exist.
  void (*multiply)(const std::byte* left, const std::byte* right, int64_t steps, float* out, int64_t stride, bool add,
                   const float* next);
};

struct Kernels {
  Typed<float> f32;
  Typed<Bf16> bf16;
  void (*begin)();  // of the calling thread's use of the unit
  void (*end)();

  template <class T>
  const Typed<T>& typed() const {
    if constexpr (kParts<T> == 1)
      return bf16;
    else
      return f32;
  }
};

// nullptr where there is no such unit, or the system does not let us use it.
const Kernels* kernels();

}  // namespace troupe::tiles
