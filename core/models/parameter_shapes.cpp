#include "core/models/parameter_shapes.hpp"

namespace troupe {

std::map<std::string, std::vector<int64_t>> parameter_shapes(const DecoderConfig& c) {
  const int64_t query = c.num_heads * c.head_dim, key = c.num_kv_heads * c.head_dim;
  std::map<std::string, std::vector<int64_t>> shapes;
  const auto linear = [&](const std::string& name, int64_t out, int64_t in, bool bias) {
    shapes[name + ".weight"] = {out, in};
    if (bias) shapes[name + ".bias"] = {out};
  };
  const auto feed_forward = [&](const std::string& prefix) {
    linear(prefix + "gate_proj", c.intermediate_size, c.hidden_size, c.mlp_bias);
    linear(prefix + "up_proj", c.intermediate_size, c.hidden_size, c.mlp_bias);
    linear(prefix + "down_proj", c.hidden_size, c.intermediate_size, c.mlp_bias);
  };
  linear("model.embed_tokens", c.vocab_size, c.hidden_size, false);
  shapes["model.norm.weight"] = {c.hidden_size};
  if (!c.tie_embeddings) linear("lm_head", c.vocab_size, c.hidden_size, false);
  for (int64_t i = 0; i < c.num_layers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    shapes[layer + "input_layernorm.weight"] = {c.hidden_size};
    shapes[layer + "post_attention_layernorm.weight"] = {c.hidden_size};
    linear(layer + "self_attn.q_proj", query, c.hidden_size, c.qkv_bias);
    linear(layer + "self_attn.k_proj", key, c.hidden_size, c.qkv_bias);
    linear(layer + "self_attn.v_proj", key, c.hidden_size, c.qkv_bias);
    linear(layer + "self_attn.o_proj", c.hidden_size, query, c.o_bias);
    if (c.qk_norm) {
      shapes[layer + "self_attn.q_norm.weight"] = {c.head_dim};
      shapes[layer + "self_attn.k_norm.weight"] = {c.head_dim};
    }
    for (const std::string& prefix : feed_forward_prefixes(c.moe)) feed_forward(layer + prefix);
    if (c.moe.experts > 0) linear(layer + "mlp.gate", c.moe.experts, c.hidden_size, false);
  }
  return shapes;
}

std::vector<std::string> feed_forward_prefixes(const MoeConfig& moe) {
  if (moe.experts == 0) return {"mlp."};
  std::vector<std::string> prefixes;
  for (int64_t j = 0; j < moe.experts; ++j) prefixes.push_back("mlp.experts." + std::to_string(j) + ".");
  for (int64_t j = 0; j < moe.shared_experts; ++j) prefixes.push_back("mlp.shared_experts." + std::to_string(j) + ".");
  return prefixes;
}

}  // namespace troupe
