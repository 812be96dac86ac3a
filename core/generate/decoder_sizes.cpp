#include "core/generate/decoder_sizes.hpp"

#include <stdexcept>
#include <string>

#include "core/models/expert_groups.hpp"

namespace troupe {
namespace {

void expect(bool fine, const char* what, int64_t value, const std::string& expected) {
  if (!fine)
    throw std::invalid_argument(std::string("decoder: ") + what + " is " + std::to_string(value) + ", expected " +
                                expected);
}

}  // namespace

DecoderSizes::DecoderSizes(const DecoderConfig& c)
    : hidden(c.hidden_size),
      hidden_padded(round_up(c.hidden_size, 32)),
      intermediate(c.intermediate_size),
      intermediate_padded(round_up(c.intermediate_size, 32)),
      rows_per_token(c.moe.experts > 0 ? c.moe.per_token + c.moe.shared_experts : 1),
      head_dim(c.head_dim),
      head_dim_padded(round_up(c.head_dim, 16)),
      num_heads(c.num_heads),
      num_kv_heads(c.num_kv_heads),
      attention_width(round_up(c.num_heads * head_dim_padded, 32)),
      qkv_width(round_up((c.num_heads + 2 * c.num_kv_heads) * head_dim_padded, 32)),
      vocab(c.vocab_size),
      vocab_padded(round_up(c.vocab_size, 32)),
      page_elements(2 * c.num_kv_heads * kernels::kPageTokens * head_dim_padded) {
  expect(hidden > 0, "hidden_size", hidden, "above 0");
  expect(intermediate > 0, "intermediate_size", intermediate, "above 0");
  expect(vocab > 0 && vocab < (int64_t{1} << 31), "vocab_size", vocab, "above 0, below 2^31");
  expect(c.num_layers > 0, "num_layers", c.num_layers, "above 0");
  expect(head_dim > 0 && head_dim % 2 == 0 && head_dim <= 512, "head_dim", head_dim, "even, 2 to 512");
  expect(num_kv_heads > 0 && num_heads > 0 && num_heads % num_kv_heads == 0, "num_heads", num_heads,
         "a multiple of num_kv_heads, " + std::to_string(num_kv_heads));
  check_experts(c.moe);
  expect(c.moe.experts == 0 || !c.mlp_bias, "mlp_bias", c.mlp_bias, "none with experts");
  expect(c.max_positions > 0, "max_positions", c.max_positions, "above 0");
}

}  // namespace troupe
