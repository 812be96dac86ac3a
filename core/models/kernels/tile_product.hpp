// Matrix products in tiles of 32 x 32: out [M, N] (+)= left [M, K] right [K, N], sums in float32.
//
// The AMX tile unit multiplies bfloat16. There a float32 operand is taken as the sum of three bfloat16 numbers,
// x = x1 + x2 + x3 (each the rest rounded to nearest: together 24 bits, all that x has), and of the nine products of
// two such sums the six largest are added up: x1 y1 + x1 y2 + x2 y1 + x1 y3 + x2 y2 + x3 y1. What is left out is below
// 2^-24 |x y|, the rounding of one float32 product. (The decomposition is that of Henry, Tang & Heinecke 2019,
// "Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations".) Numbers beyond the
// largest bfloat16 (3.39e38) give NaN; parts below 1.2e-38 count as zero.
//
// AMD's CPUs have AVX-512 in its place, which MKL takes on Intel's alone: float32 is multiplied there as it is, and
// bfloat16 in pairs.
//
// Operands are packed first, in blocks of 32 rows (left) or columns (right). An element's sum runs over K in order,
// alone: it does not depend on M, N or the other elements. No tensor library here; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "core/models/kernels/rows.hpp"

namespace troupe::tiles {

using rows::Bf16;

constexpr int64_t kBlock = 32;  // rows or columns of a block
constexpr int64_t kStep = 32;   // of K, multiplied at once

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
  int64_t step_bytes;  // of a packed block, for each step of K
  int64_t most_steps;  // packed at once: eight blocks fill about half of a second-level cache
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
    if constexpr (std::is_same_v<T, float>)
      return f32;
    else
      return bf16;
  }
};

// This machine's. nullptr where there is neither AMX (or the system does not let us use it) nor an AMD CPU with
// AVX-512.
const Kernels* kernels();

}  // namespace troupe::tiles
