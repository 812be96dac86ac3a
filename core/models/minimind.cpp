#include "core/models/minimind.hpp"

#include <stdexcept>
#include <string>

#include "core/models/parameter_shapes.hpp"

namespace troupe {

RopeConfig minimind_rope(double theta, bool yarn) {
  RopeConfig rope;
  rope.theta = theta;
  if (!yarn) return rope;
  rope.type = "yarn";
  rope.factor = 16;
  rope.original_max_positions = 2048;
  rope.attention_factor = 1;
  rope.beta_fast = 32;
  rope.beta_slow = 1;
  return rope;
}

DecoderConfig minimind_config(int64_t hidden_size, int64_t num_layers, bool moe, bool yarn) {
  if (hidden_size <= 0 || hidden_size % 16 != 0)
    throw std::invalid_argument("minimind: hidden_size is " + std::to_string(hidden_size) +
                                ", expected a positive multiple of 16");
  if (num_layers <= 0)
    throw std::invalid_argument("minimind: num_layers is " + std::to_string(num_layers) + ", expected above 0");
  DecoderConfig c;
  c.family = "minimind";
  c.vocab_size = 6400;
  c.hidden_size = hidden_size;
  c.intermediate_size = (8 * hidden_size / 3 + 63) / 64 * 64;
  c.num_layers = num_layers;
  c.num_heads = 8;
  c.num_kv_heads = 2;
  c.head_dim = hidden_size / c.num_heads;
  c.rms_norm_eps = 1e-5;
  c.max_positions = 32768;
  c.rope = minimind_rope(1e6, yarn);
  c.tie_embeddings = true;
  if (moe) c.moe.experts = 4;
  c.bos_token = 1;
  c.pad_token = 0;
  c.eos_tokens = {2};
  return c;
}

int64_t parameter_count(const DecoderConfig& config) {
  int64_t total = 0;
  for (const auto& [name, shape] : parameter_shapes(config)) {
    int64_t elements = 1;
    for (const int64_t n : shape) elements *= n;
    total += elements;
  }
  return total;
}

int64_t active_parameter_count(const DecoderConfig& config) {
  if (config.moe.experts == 0) return parameter_count(config);
  DecoderConfig passed = config;  // one token's experts, and the router's rows of the others
  passed.moe.experts = config.moe.per_token;
  return parameter_count(passed) + config.num_layers * (config.moe.experts - config.moe.per_token) * config.hidden_size;
}

}  // namespace troupe
