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

// Writes a line past the cache.
inline void stream_line(const std::byte* from, std::byte* to) {
  for (std::size_t i = 0; i < 64; i += 16)
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + i), _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i)));
}

// kCopy: the bytes go to `to` (aligned to 16) as well, line by line, so that reading, checking and writing overlap.
template <bool kCopy>
__attribute__((target("sse4.2"))) uint32_t crc_by_instruction(const std::byte* p, std::size_t n, uint32_t crc,
                                                              std::byte* to) {
  uint64_t a = crc;
  for (; n >= 3 * kLane; p += 3 * kLane, n -= 3 * kLane) {
    uint64_t b = 0, c = 0;
    for (std::size_t line = 0; line < kLane; line += 64) {
      // Three streams of 1 KiB are too short for the processor to see them coming.
      for (std::size_t lane = 3; lane < 6; ++lane)
        _mm_prefetch(reinterpret_cast<const char*>(p) + lane * kLane + line, _MM_HINT_T0);
      for (std::size_t i = line; i < line + 64; i += 8) {
        a = _mm_crc32_u64(a, load64(p + i));
        b = _mm_crc32_u64(b, load64(p + kLane + i));
        c = _mm_crc32_u64(c, load64(p + 2 * kLane + i));
      }
      if constexpr (kCopy)
        for (std::size_t lane = 0; lane < 3; ++lane) stream_line(p + lane * kLane + line, to + lane * kLane + line);
    }
    a = advance_lane(advance_lane(a) ^ b) ^ c;
    if constexpr (kCopy) to += 3 * kLane;
  }
  if constexpr (kCopy) std::memcpy(to, p, n);
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
  if (kHasInstruction) return ~crc_by_instruction<false>(bytes.data(), bytes.size(), ~crc, nullptr);
#endif
  return crc32c_portable(bytes, crc);
}

uint32_t crc32c_copy(std::span<const std::byte> bytes, std::byte* to, uint32_t crc) {
#if defined(__x86_64__)
  if (kHasInstruction && reinterpret_cast<std::uintptr_t>(to) % 16 == 0) {
    crc = ~crc_by_instruction<true>(bytes.data(), bytes.size(), ~crc, to);
    _mm_sfence();  // the lines are in memory before anyone is told of them
    return crc;
  }
#endif
  std::memcpy(to, bytes.data(), bytes.size());
  return crc32c(bytes, crc);
}

}  // namespace troupe
