#include "core/generate/pack_panel.hpp"

#include <xmmintrin.h>

#include <algorithm>
#include <cstring>

namespace troupe {
namespace {

// A line is 64 bytes of packed elements: read from each row at once, so that a row's cache line is fetched once however
// the rows' distance maps to cache sets.
constexpr int64_t kLineBytes = 64;
constexpr int64_t kAheadBytes = 512;

uint16_t to_bf16_bits(float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, 4);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? (bits >> 16) | 0x40 : rounded);
}

float from_bf16_bits(uint16_t bits) {
  const uint32_t word = static_cast<uint32_t>(bits) << 16;
  float v;
  std::memcpy(&v, &word, 4);
  return v;
}

// n elements from `from` to `to`, converted.
void convert(const std::byte* from, bool from_bf16, std::byte* to, bool to_bf16, int64_t n) {
  if (from_bf16 == to_bf16) {
    std::memcpy(to, from, static_cast<size_t>(n * (to_bf16 ? 2 : 4)));
  } else if (to_bf16) {
    const auto* values = reinterpret_cast<const float*>(from);
    auto* bits = reinterpret_cast<uint16_t*>(to);
    for (int64_t i = 0; i < n; ++i) bits[i] = to_bf16_bits(values[i]);
  } else {
    const auto* bits = reinterpret_cast<const uint16_t*>(from);
    auto* values = reinterpret_cast<float*>(to);
    for (int64_t i = 0; i < n; ++i) values[i] = from_bf16_bits(bits[i]);
  }
}

// The elements [k0, k0 + line) of one row as the panel counts them. 32 rows are more streams than the processor follows
// by itself.
void read_line(const PanelSource& s, const std::byte* row, int64_t k0, bool to_bf16, std::byte* line) {
  const int64_t size = s.bf16 ? 2 : 4, out_size = to_bf16 ? 2 : 4, n = kLineBytes / out_size;
  if (row && s.group == s.group_padded && k0 + n <= s.k) {
    _mm_prefetch(reinterpret_cast<const char*>(row + k0 * size) + kAheadBytes, _MM_HINT_T0);
    convert(row + k0 * size, s.bf16, line, to_bf16, n);
    return;
  }
  std::memset(line, 0, kLineBytes);
  if (!row) return;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t group = (k0 + i) / s.group_padded, within = (k0 + i) % s.group_padded;
    const int64_t k = group * s.group + within;
    if (within < s.group && k < s.k) convert(row + k * size, s.bf16, line + i * out_size, to_bf16, 1);
  }
}

}  // namespace

void pack_panel(const PanelSource& source, int64_t k_padded, bool to_bf16, std::byte* panel) {
  constexpr int64_t kCols = 32, kUnits = kLineBytes / 4;  // a unit is a float or a pair of bfloat16
  const int64_t per_line = kLineBytes / (to_bf16 ? 2 : 4);
  alignas(64) float lines[kCols][kUnits];
  for (int64_t k0 = 0; k0 < k_padded; k0 += per_line) {
    for (int64_t c = 0; c < kCols; ++c) {
      read_line(source, source.rows[c], k0, to_bf16, reinterpret_cast<std::byte*>(lines[c]));
    }
    auto* out = reinterpret_cast<float*>(panel) + k0 / per_line * kUnits * kCols;
    for (int64_t u = 0; u < kUnits; u += 4) {
      for (int64_t c = 0; c < kCols; c += 4) {
        __m128 rows[4] = {_mm_load_ps(lines[c] + u), _mm_load_ps(lines[c + 1] + u), _mm_load_ps(lines[c + 2] + u),
                          _mm_load_ps(lines[c + 3] + u)};
        _MM_TRANSPOSE4_PS(rows[0], rows[1], rows[2], rows[3]);
        // Past the cache: the panel is not read before the whole model is packed.
        for (int64_t i = 0; i < 4; ++i) _mm_stream_ps(out + (u + i) * kCols + c, rows[i]);
      }
    }
  }
  _mm_sfence();
}

void pack_row(const std::byte* row, bool from_bf16, int64_t n, int64_t n_padded, bool to_bf16, std::byte* out) {
  const int64_t size = to_bf16 ? 2 : 4;
  convert(row, from_bf16, out, to_bf16, n);
  std::memset(out + n * size, 0, static_cast<size_t>((n_padded - n) * size));
}

}  // namespace troupe
