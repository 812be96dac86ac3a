#include "core/io/crc32c.hpp"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace troupe {
namespace {

constexpr uint32_t kPolynomial = 0x82f63b78;  // reflected

using Tables = std::array<std::array<uint32_t, 256>, 8>;

// tables[k][b]: the CRC of byte b followed by k zero bytes.
constexpr Tables make_tables() {
  Tables tables{};
  for (uint32_t b = 0; b < 256; ++b) {
    uint32_t crc = b;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) ? kPolynomial : 0);
    tables[0][b] = crc;
  }
  for (uint32_t b = 0; b < 256; ++b)
    for (std::size_t k = 1; k < 8; ++k) tables[k][b] = (tables[k - 1][b] >> 8) ^ tables[0][tables[k - 1][b] & 0xff];
  return tables;
}
constexpr Tables kTables = make_tables();

uint64_t load64(const std::byte* p) {
  uint64_t value;
  std::memcpy(&value, p, 8);
  return value;
}

#if defined(__x86_64__)

// The instruction takes 3 cycles and can start each cycle, so three streams of kLane bytes run side by side; their
// results are joined by advancing one over kLane zero bytes, a linear map kept as four tables.
constexpr std::size_t kLane = 1024;

using Advance = std::array<std::array<uint32_t, 256>, 4>;

constexpr uint32_t advance_by_zeros(uint32_t crc, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i) crc = (crc >> 8) ^ kTables[0][crc & 0xff];
  return crc;
}

constexpr Advance make_advance() {
  Advance advance{};
  for (std::size_t k = 0; k < 4; ++k)
    for (std::size_t bit = 0; bit < 8; ++bit) {
      const uint32_t image = advance_by_zeros(uint32_t{1} << (8 * k + bit), kLane);
      for (std::size_t b = 0; b < 256; ++b)
        if (b >> bit & 1) advance[k][b] ^= image;
    }
  return advance;
}
constexpr Advance kAdvance = make_advance();

uint64_t advance_lane(uint64_t crc) {
  return kAdvance[0][crc & 0xff] ^ kAdvance[1][crc >> 8 & 0xff] ^ kAdvance[2][crc >> 16 & 0xff] ^
         kAdvance[3][crc >> 24 & 0xff];
}

__attribute__((target("sse4.2"))) uint32_t crc_by_instruction(const std::byte* p, std::size_t n, uint32_t crc) {
  uint64_t a = crc;
  for (; n >= 3 * kLane; p += 3 * kLane, n -= 3 * kLane) {
    uint64_t b = 0, c = 0;
    for (std::size_t i = 0; i < kLane; i += 8) {
      a = _mm_crc32_u64(a, load64(p + i));
      b = _mm_crc32_u64(b, load64(p + kLane + i));
      c = _mm_crc32_u64(c, load64(p + 2 * kLane + i));
    }
    a = advance_lane(advance_lane(a) ^ b) ^ c;
  }
  for (; n >= 8; p += 8, n -= 8) a = _mm_crc32_u64(a, load64(p));
  for (; n > 0; ++p, --n) a = _mm_crc32_u8(static_cast<uint32_t>(a), static_cast<uint8_t>(*p));
  return static_cast<uint32_t>(a);
}

const bool kHasInstruction = __builtin_cpu_supports("sse4.2");

#endif

}  // namespace

uint32_t crc32c_portable(std::span<const std::byte> bytes, uint32_t crc) {
  const std::byte* p = bytes.data();
  std::size_t n = bytes.size();
  crc = ~crc;
  for (; n >= 8; p += 8, n -= 8) {
    const uint64_t x = load64(p) ^ crc;
    crc = 0;
    for (std::size_t k = 0; k < 8; ++k) crc ^= kTables[7 - k][x >> (8 * k) & 0xff];
  }
  for (; n > 0; ++p, --n) crc = (crc >> 8) ^ kTables[0][(crc ^ static_cast<uint8_t>(*p)) & 0xff];
  return ~crc;
}

uint32_t crc32c(std::span<const std::byte> bytes, uint32_t crc) {
#if defined(__x86_64__)
  if (kHasInstruction) return ~crc_by_instruction(bytes.data(), bytes.size(), ~crc);
#endif
  return crc32c_portable(bytes, crc);
}

}  // namespace troupe
