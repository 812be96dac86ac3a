// Sixteen floats as an array: what any machine runs.
#include "core/generate/kernels_body.hpp"
#include "core/generate/kernels_sets.hpp"

namespace troupe::kernels {
namespace {

struct Portable {
  struct F {
    float v[16];
  };
  struct Pair {
    F even, odd;
  };
  static constexpr int kRows = 2;
  static constexpr int64_t kPrefetchBytes = 1024;

  template <class Op>
  static F each(Op op) {
    F r;
    for (int i = 0; i < 16; ++i) r.v[i] = op(i);
    return r;
  }
  static float widen(uint16_t bits) {
    const uint32_t word = static_cast<uint32_t>(bits) << 16;
    float v;
    std::memcpy(&v, &word, 4);
    return v;
  }
  static F zero() { return set1(0.0f); }
  static F set1(float x) {
    return each([&](int) { return x; });
  }
  static F load(const float* p) {
    return each([&](int i) { return p[i]; });
  }
  static void store(float* p, const F& a) { std::memcpy(p, a.v, sizeof a.v); }
  static F add(const F& a, const F& b) {
    return each([&](int i) { return a.v[i] + b.v[i]; });
  }
  static F sub(const F& a, const F& b) {
    return each([&](int i) { return a.v[i] - b.v[i]; });
  }
  static F mul(const F& a, const F& b) {
    return each([&](int i) { return a.v[i] * b.v[i]; });
  }
  static F div(const F& a, const F& b) {
    return each([&](int i) { return a.v[i] / b.v[i]; });
  }
  static F max(const F& a, const F& b) {
    return each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
  }
  static F min(const F& a, const F& b) {
    return each([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
  }
  static F fma(const F& a, const F& b, const F& c) {
    return each([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
  }
  static F round(const F& a) {
    const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds |a| < 2^22 to nearest even
    return each([&](int i) { return (a.v[i] + magic) - magic; });
  }
  static F scale2(const F& p, const F& n) {
    return each([&](int i) {
      const uint32_t bits = static_cast<uint32_t>(static_cast<int32_t>(n.v[i]) + 127) << 23;
      float power;
      std::memcpy(&power, &bits, 4);
      return p.v[i] * power;
    });
  }
  static F keep_above(const F& x, const F& limit, const F& v) {
    return each([&](int i) { return x.v[i] < limit.v[i] ? 0.0f : v.v[i]; });
  }
  static float reduce_add(F a) {
    for (int width = 8; width; width /= 2)
      for (int i = 0; i < width; ++i) a.v[i] += a.v[i + width];
    return a.v[0];
  }
  static float reduce_max(const F& a) {
    float top = a.v[0];
    for (int i = 1; i < 16; ++i) top = a.v[i] > top ? a.v[i] : top;
    return top;
  }
  static F load_bf16(const uint16_t* p) {
    return each([&](int i) { return widen(p[i]); });
  }
  static void store_bf16(uint16_t* p, const F& a) {
    for (int i = 0; i < 16; ++i) p[i] = round_to_bf16(a.v[i]);
  }
  static Pair load_pair(const uint16_t* p) {
    return {each([&](int i) { return widen(p[2 * i]); }), each([&](int i) { return widen(p[2 * i + 1]); })};
  }
  static Pair broadcast_pair(const uint16_t* p) { return {set1(widen(p[0])), set1(widen(p[1]))}; }
  static F dot(const F& acc, const Pair& a, const Pair& b) { return fma(a.odd, b.odd, fma(a.even, b.even, acc)); }
};

}  // namespace

const KernelTable kPortableFloat32 = make_table<Portable, Float32<Portable>>("portable");
const KernelTable kPortableBFloat16 = make_table<Portable, BFloat16<Portable>>("portable");

}  // namespace troupe::kernels
