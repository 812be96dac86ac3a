// AVX-512 with vdpbf16ps and vcvtneps2bf16: bfloat16 pairs are multiplied as they lie.
#pragma once

#include "core/generate/simd_avx512.hpp"

namespace troupe::kernels {
namespace {

struct Avx512Bf16 : Avx512 {
  using Pair = __m512bh;

  static void store_bf16(uint16_t* p, F x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), (__m256i)_mm512_cvtneps_pbh(x));
  }
  static Pair load_pair(const uint16_t* p) { return (__m512bh)_mm512_loadu_si512(p); }
  static Pair broadcast_pair(const uint16_t* p) {
    int bits;
    std::memcpy(&bits, p, 4);
    return (__m512bh)_mm512_set1_epi32(bits);
  }
  static F dot(F acc, Pair x, Pair y) { return _mm512_dpbf16_ps(acc, x, y); }
};

}  // namespace
}  // namespace troupe::kernels
