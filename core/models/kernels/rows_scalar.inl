// Scalar building blocks, inlined into the loops of the other rows_*.inl files. No include may bring inline functions
// of other libraries here: compiled for a newer instruction set, the linker might take them for the whole program.

template <class T>
inline float load(T x);
template <>
inline float load<float>(float x) {
  return x;
}
template <>
inline float load<Bf16>(Bf16 x) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(x.bits) << 16);
}

template <class T>
inline T round_to(float x);
template <>
inline float round_to<float>(float x) {
  return x;
}
template <>
inline Bf16 round_to<Bf16>(float x) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, x);
  return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

// e^x within 2 units in the last place: 2^n * p(r), |r| <= ln 2 / 2. 0 below -87.3; x is expected below 88.
inline float exponential(float x) {
  const float clamped = x < -87.3f ? -87.3f : x;
  const float shifted =
      clamped * 1.44269504f + 12582912.0f;  // the addend rounds to an integer in the low mantissa bits
  const float n = shifted - 12582912.0f;
  const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const uint32_t scaled = __builtin_bit_cast(uint32_t, p) + (__builtin_bit_cast(uint32_t, shifted) << 23);
  return x < -87.3f ? 0.0f : __builtin_bit_cast(float, scaled);
}

inline float sigmoid(float x) {
  return 1.0f / (1.0f + exponential(x > -80.0f ? -x : 80.0f));
}
