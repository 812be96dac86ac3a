// The kernels, written once over a vector of 16 floats. Included by one .cpp per instruction set, each compiled with
// its own flags: everything is in an unnamed namespace, and nothing of the standard library is used, so that no
// function compiled for a newer machine can be linked into another file.
//
// S, the instruction set, has: F (16 floats), kRows (rows of a GEMM tile), zero, set1, load, store, add, sub, mul, div,
// max, min, fma(a, b, c) = a * b + c, round, scale2(p, n) = p * 2^n, keep_above(x, limit, v) = x < limit ? 0 : v,
// reduce_add, reduce_max, load_bf16, store_bf16, and for bfloat16 pairs Pair, load_pair (16 pairs), broadcast_pair,
// dot(acc, a, b).
#pragma once

#include "core/generate/body_attention.hpp"
#include "core/generate/body_gemm.hpp"
#include "core/generate/body_logits.hpp"
#include "core/generate/body_rows.hpp"
#include "core/generate/kernels.hpp"

namespace troupe::kernels {
namespace {

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
