// The number formats of ggml's tensors and what they stand for. Bit layouts and formulas: ggml-quants of llama.cpp, as
// documented by the `gguf` Python package, whose results are reproduced bit for bit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace troupe {

// Values are ggml's own numbers.
enum class GgufType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kBF16 = 30,
};

struct GgufTypeTraits {
  std::string_view name;
  uint32_t block_elements;
  uint32_t block_bytes;
};

// None for the types that are not read here.
std::optional<GgufTypeTraits> gguf_type_traits(uint32_t type);

// bytes.size() == block_bytes * out.size() / block_elements; out.size() is a multiple of block_elements.
void dequantize(GgufType type, std::span<const std::byte> bytes, std::span<float> out);

}  // namespace troupe
