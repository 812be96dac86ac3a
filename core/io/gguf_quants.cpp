#include "core/io/gguf_quants.hpp"

#include <bit>
#include <cstring>
#include <stdexcept>

namespace troupe {
namespace {

// IEEE half to float: exact for every value, subnormals included.
float half(const std::byte* p) {
  uint16_t h;
  std::memcpy(&h, p, 2);
  const uint32_t magnitude = (uint32_t{h} & 0x7fff) << 13;
  float value = std::bit_cast<float>(magnitude) * 0x1p112f;
  if ((h & 0x7c00) == 0x7c00) value = std::bit_cast<float>(magnitude | 0x7f800000);  // infinity, NaN
  return h & 0x8000 ? -value : value;
}

uint32_t u8(std::byte b) {
  return std::to_integer<uint32_t>(b);
}
float f(uint32_t q) {
  return static_cast<float>(q);
}
float f(int32_t q) {
  return static_cast<float>(q);
}

uint32_t load32(const std::byte* p) {
  uint32_t value;
  std::memcpy(&value, p, 4);
  return value;
}

// ---- blocks of 32: a scale, for the _1 types a minimum, for the 5-bit types 32 high bits, then the quanta
// ------------

// Low nibbles are elements 0-15, high nibbles 16-31.
void q4_0(const std::byte* b, float* y) {
  const float d = half(b);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * f(static_cast<int32_t>(u8(b[2 + i]) & 15) - 8);
    y[i + 16] = d * f(static_cast<int32_t>(u8(b[2 + i]) >> 4) - 8);
  }
}

void q4_1(const std::byte* b, float* y) {
  const float d = half(b), m = half(b + 2);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * f(u8(b[4 + i]) & 15) + m;
    y[i + 16] = d * f(u8(b[4 + i]) >> 4) + m;
  }
}

void q5_0(const std::byte* b, float* y) {
  const float d = half(b);
  const uint32_t high = load32(b + 2);
  for (int i = 0; i < 16; ++i) {
    const uint32_t low = (u8(b[6 + i]) & 15) | (high >> i & 1) << 4;
    const uint32_t up = u8(b[6 + i]) >> 4 | (high >> (i + 16) & 1) << 4;
    y[i] = d * f(static_cast<int32_t>(low) - 16);
    y[i + 16] = d * f(static_cast<int32_t>(up) - 16);
  }
}

void q5_1(const std::byte* b, float* y) {
  const float d = half(b), m = half(b + 2);
  const uint32_t high = load32(b + 4);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * f((u8(b[8 + i]) & 15) | (high >> i & 1) << 4) + m;
    y[i + 16] = d * f(u8(b[8 + i]) >> 4 | (high >> (i + 16) & 1) << 4) + m;
  }
}

void q8_0(const std::byte* b, float* y) {
  const float d = half(b);
  for (int i = 0; i < 32; ++i) y[i] = d * f(static_cast<int32_t>(static_cast<int8_t>(b[2 + i])));
}

// ---- super-blocks of 256 --------------------------------------------------------------------------------------------

// Eight 6-bit scales and eight 6-bit minima in 12 bytes.
void scale_and_min(const std::byte* s, int j, float& scale, float& min) {
  if (j < 4) {
    scale = f(u8(s[j]) & 63);
    min = f(u8(s[j + 4]) & 63);
  } else {
    scale = f((u8(s[j + 4]) & 15) | u8(s[j - 4]) >> 6 << 4);
    min = f(u8(s[j + 4]) >> 4 | u8(s[j]) >> 6 << 4);
  }
}

// Eight groups of 32; groups 2k and 2k + 1 are the low and the high nibbles of the same 32 bytes. Q5_K: bit j of
// high[i] is the fifth bit of element i of group j.
void k4_or_5(const std::byte* b, const std::byte* high, const std::byte* quanta, float* y) {
  const float d = half(b), dmin = half(b + 2);
  for (int j = 0; j < 8; ++j) {
    float scale, min;
    scale_and_min(b + 4, j, scale, min);
    const float ds = d * scale, dm = dmin * min;
    for (int i = 0; i < 32; ++i) {
      uint32_t q = u8(quanta[32 * (j / 2) + i]) >> (4 * (j % 2)) & 15;
      if (high != nullptr) q |= (u8(high[i]) >> j & 1) << 4;
      y[32 * j + i] = ds * f(q) - dm;
    }
  }
}

void q4_k(const std::byte* b, float* y) {
  k4_or_5(b, nullptr, b + 16, y);
}
void q5_k(const std::byte* b, float* y) {
  k4_or_5(b, b + 16, b + 48, y);
}

// 128 bytes of low nibbles, 64 of two high bits, 16 signed scales, one half. In each half of 128 elements, group g of
// 32 takes nibble g / 2 of bytes 32 (g % 2) + i and bits 2 g of high byte i.
void q6_k(const std::byte* b, float* y) {
  const float d = half(b + 208);
  for (int n = 0; n < 2; ++n) {
    const std::byte* low = b + 64 * n;
    const std::byte* high = b + 128 + 32 * n;
    for (int g = 0; g < 4; ++g)
      for (int i = 0; i < 32; ++i) {
        const uint32_t q = (u8(low[32 * (g % 2) + i]) >> (4 * (g / 2)) & 15) | (u8(high[i]) >> (2 * g) & 3) << 4;
        const auto scale = static_cast<int32_t>(static_cast<int8_t>(b[192 + 8 * n + 2 * g + i / 16]));
        y[128 * n + 32 * g + i] = d * f(scale) * f(static_cast<int32_t>(q) - 32);
      }
  }
}

void each_block(std::span<const std::byte> bytes, std::span<float> out, const GgufTypeTraits& t,
                void (*block)(const std::byte*, float*)) {
  for (std::size_t i = 0; i < out.size() / t.block_elements; ++i)
    block(bytes.data() + i * t.block_bytes, out.data() + i * t.block_elements);
}

}  // namespace

std::optional<GgufTypeTraits> gguf_type_traits(uint32_t type) {
  switch (static_cast<GgufType>(type)) {
    case GgufType::kF32:
      return {{"F32", 1, 4}};
    case GgufType::kF16:
      return {{"F16", 1, 2}};
    case GgufType::kBF16:
      return {{"BF16", 1, 2}};
    case GgufType::kQ4_0:
      return {{"Q4_0", 32, 18}};
    case GgufType::kQ4_1:
      return {{"Q4_1", 32, 20}};
    case GgufType::kQ5_0:
      return {{"Q5_0", 32, 22}};
    case GgufType::kQ5_1:
      return {{"Q5_1", 32, 24}};
    case GgufType::kQ8_0:
      return {{"Q8_0", 32, 34}};
    case GgufType::kQ4_K:
      return {{"Q4_K", 256, 144}};
    case GgufType::kQ5_K:
      return {{"Q5_K", 256, 176}};
    case GgufType::kQ6_K:
      return {{"Q6_K", 256, 210}};
  }
  return std::nullopt;
}

void dequantize(GgufType type, std::span<const std::byte> bytes, std::span<float> out) {
  const auto t = gguf_type_traits(static_cast<uint32_t>(type));
  if (!t || out.size() % t->block_elements != 0 || bytes.size() != out.size() / t->block_elements * t->block_bytes)
    throw std::invalid_argument("dequantize: " + std::to_string(bytes.size()) + " bytes do not hold " +
                                std::to_string(out.size()) + " elements");
  switch (type) {
    case GgufType::kF32:
      std::memcpy(out.data(), bytes.data(), bytes.size());
      return;
    case GgufType::kF16:
      for (std::size_t i = 0; i < out.size(); ++i) out[i] = half(bytes.data() + 2 * i);
      return;
    case GgufType::kBF16:
      for (std::size_t i = 0; i < out.size(); ++i)
        out[i] = std::bit_cast<float>((u8(bytes[2 * i]) | u8(bytes[2 * i + 1]) << 8) << 16);
      return;
    case GgufType::kQ4_0:
      return each_block(bytes, out, *t, q4_0);
    case GgufType::kQ4_1:
      return each_block(bytes, out, *t, q4_1);
    case GgufType::kQ5_0:
      return each_block(bytes, out, *t, q5_0);
    case GgufType::kQ5_1:
      return each_block(bytes, out, *t, q5_1);
    case GgufType::kQ8_0:
      return each_block(bytes, out, *t, q8_0);
    case GgufType::kQ4_K:
      return each_block(bytes, out, *t, q4_k);
    case GgufType::kQ5_K:
      return each_block(bytes, out, *t, q5_k);
    case GgufType::kQ6_K:
      return each_block(bytes, out, *t, q6_k);
  }
}

}  // namespace troupe
