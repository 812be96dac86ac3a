// The sizes of a decoder as the kernels lay it out: everything that is multiplied over is a multiple of 32, heads are a
// multiple of 16. Padding is zero and stays zero.
#pragma once

#include <cstdint>

#include "core/generate/kernels.hpp"
#include "core/models/config.hpp"

namespace troupe {

constexpr int64_t round_up(int64_t n, int64_t unit) {
  return (n + unit - 1) / unit * unit;
}

struct DecoderSizes {
  // Throws std::invalid_argument for sizes that no decoder of the family has.
  explicit DecoderSizes(const DecoderConfig& config);

  int64_t hidden, hidden_padded;
  int64_t intermediate, intermediate_padded;
  int64_t rows_per_token;  // of the feed-forward: 1, or the experts of one token and the shared ones
  int64_t head_dim, head_dim_padded;
  int64_t num_heads, num_kv_heads;
  int64_t attention_width;      // num_heads * head_dim_padded, rounded up to 32
  int64_t qkv_width;            // (num_heads + 2 num_kv_heads) * head_dim_padded, rounded up to 32
  int64_t vocab, vocab_padded;  // to 32
  int64_t page_elements;        // one page of one layer: [num_kv_heads][keys, values][16 * head_dim_padded]
};

}  // namespace troupe
