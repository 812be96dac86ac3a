// Small random decoders for the generation tests.
#pragma once

#include <ATen/ATen.h>

#include "core/models/config.hpp"
#include "core/models/parameter_shapes.hpp"
#include "core/models/state_dict.hpp"

namespace troupe {

// Sizes that are no multiple of anything the kernels like.
inline DecoderConfig odd_config() {
  DecoderConfig c;
  c.vocab_size = 1109;
  c.hidden_size = 72;
  c.intermediate_size = 100;
  c.num_layers = 3;
  c.num_heads = 6;
  c.num_kv_heads = 2;
  c.head_dim = 12;
  c.max_positions = 512;
  c.eos_tokens = {2};
  c.tie_embeddings = true;
  return c;
}

// Every part that a family may have: biases everywhere, norms on queries and keys, an own head.
inline DecoderConfig full_config() {
  DecoderConfig c = odd_config();
  c.qkv_bias = c.o_bias = c.mlp_bias = c.qk_norm = true;
  c.tie_embeddings = false;
  c.num_heads = 5;
  c.num_kv_heads = 1;
  c.head_dim = 80;
  return c;
}

// The first with experts.
inline DecoderConfig expert_config() {
  DecoderConfig c = odd_config();
  c.moe.experts = 5;
  c.moe.per_token = 2;
  c.moe.shared_experts = 1;
  return c;
}

inline StateDict random_weights(const DecoderConfig& c, uint64_t seed, at::ScalarType dtype = at::kFloat) {
  at::manual_seed(seed);
  StateDict w;
  const auto add = [&](const std::string& name, std::vector<int64_t> shape, double scale, double shift = 0) {
    w[name] = (at::randn(shape) * scale + shift).to(dtype);
  };
  const auto linear = [&](const std::string& name, int64_t out, int64_t in, bool bias) {
    add(name + ".weight", {out, in}, 1.0 / std::sqrt(static_cast<double>(in)));
    if (bias) add(name + ".bias", {out}, 0.3);
  };
  add("model.embed_tokens.weight", {c.vocab_size, c.hidden_size}, 0.5);
  add("model.norm.weight", {c.hidden_size}, 0.1, 1);
  if (!c.tie_embeddings) linear("lm_head", c.vocab_size, c.hidden_size, false);
  const int64_t q = c.num_heads * c.head_dim, kv = c.num_kv_heads * c.head_dim;
  for (int64_t i = 0; i < c.num_layers; ++i) {
    const std::string p = "model.layers." + std::to_string(i) + ".";
    add(p + "input_layernorm.weight", {c.hidden_size}, 0.1, 1);
    add(p + "post_attention_layernorm.weight", {c.hidden_size}, 0.1, 1);
    linear(p + "self_attn.q_proj", q, c.hidden_size, c.qkv_bias);
    linear(p + "self_attn.k_proj", kv, c.hidden_size, c.qkv_bias);
    linear(p + "self_attn.v_proj", kv, c.hidden_size, c.qkv_bias);
    linear(p + "self_attn.o_proj", c.hidden_size, q, c.o_bias);
    for (const std::string& f : feed_forward_prefixes(c.moe)) {
      linear(p + f + "gate_proj", c.intermediate_size, c.hidden_size, c.mlp_bias);
      linear(p + f + "up_proj", c.intermediate_size, c.hidden_size, c.mlp_bias);
      linear(p + f + "down_proj", c.hidden_size, c.intermediate_size, c.mlp_bias);
    }
    if (c.moe.experts > 0) linear(p + "mlp.gate", c.moe.experts, c.hidden_size, false);
    if (c.qk_norm) {
      add(p + "self_attn.q_norm.weight", {c.head_dim}, 0.1, 1);
      add(p + "self_attn.k_norm.weight", {c.head_dim}, 0.1, 1);
    }
  }
  return w;
}

inline std::vector<int32_t> random_tokens(int64_t n, int64_t vocab_size, uint64_t seed) {
  std::vector<int32_t> tokens;
  uint64_t state = seed * 2654435761u + 12345;
  for (int64_t i = 0; i < n; ++i) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    tokens.push_back(static_cast<int32_t>((state >> 33) % static_cast<uint64_t>(vocab_size)));
  }
  return tokens;
}

}  // namespace troupe
