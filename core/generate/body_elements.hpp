// What every kernel builds on: the two element types over an instruction set S, and the exponential function.
// See kernels_body.hpp for S and for why everything is in an unnamed namespace.
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

}  // namespace
}  // namespace troupe::kernels
