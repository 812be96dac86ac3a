#include "core/generate/named_weights.hpp"

#include <stdexcept>

#include "core/models/parameter_shapes.hpp"

namespace troupe {
namespace {

std::string shape_text(at::IntArrayRef shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

at::Tensor take(const StateDict& weights, const std::string& name, at::IntArrayRef shape) {
  const auto found = weights.find(name);
  if (found == weights.end())
    throw std::invalid_argument("weights: " + name + " is missing, expected " + shape_text(shape));
  const at::Tensor& w = found->second;
  if (w.sizes() != shape)
    throw std::invalid_argument("weights: " + name + " is " + shape_text(w.sizes()) + ", expected " +
                                shape_text(shape));
  if (w.scalar_type() != at::kFloat && w.scalar_type() != at::kBFloat16)
    throw std::invalid_argument("weights: " + name + " is neither float32 nor bfloat16");
  return w.detach().to(at::kCPU).contiguous();
}

LayerWeights take_layer(const DecoderConfig& c, const StateDict& weights, int64_t layer) {
  const std::string prefix = "model.layers." + std::to_string(layer) + ".";
  const auto get = [&](const std::string& name, at::IntArrayRef shape) { return take(weights, prefix + name, shape); };
  const int64_t q = c.num_heads * c.head_dim, kv = c.num_kv_heads * c.head_dim;
  LayerWeights w;
  w.attention_norm = get("input_layernorm.weight", {c.hidden_size});
  w.mlp_norm = get("post_attention_layernorm.weight", {c.hidden_size});
  w.q = get("self_attn.q_proj.weight", {q, c.hidden_size});
  w.k = get("self_attn.k_proj.weight", {kv, c.hidden_size});
  w.v = get("self_attn.v_proj.weight", {kv, c.hidden_size});
  w.o = get("self_attn.o_proj.weight", {c.hidden_size, q});
  if (c.moe.experts > 0) w.router = get("mlp.gate.weight", {c.moe.experts, c.hidden_size});
  for (const std::string& name : feed_forward_prefixes(c.moe)) {
    FeedForwardWeights& f = w.feed_forwards.emplace_back();
    f.gate = get(name + "gate_proj.weight", {c.intermediate_size, c.hidden_size});
    f.up = get(name + "up_proj.weight", {c.intermediate_size, c.hidden_size}).to(f.gate.scalar_type());
    f.down = get(name + "down_proj.weight", {c.hidden_size, c.intermediate_size});
    if (!c.mlp_bias) continue;
    f.gate_bias = get(name + "gate_proj.bias", {c.intermediate_size});
    f.up_bias = get(name + "up_proj.bias", {c.intermediate_size});
    f.down_bias = get(name + "down_proj.bias", {c.hidden_size});
  }
  if (c.qkv_bias) {
    w.q_bias = get("self_attn.q_proj.bias", {q});
    w.k_bias = get("self_attn.k_proj.bias", {kv});
    w.v_bias = get("self_attn.v_proj.bias", {kv});
  }
  if (c.o_bias) w.o_bias = get("self_attn.o_proj.bias", {c.hidden_size});
  if (c.qk_norm) {
    w.q_norm = get("self_attn.q_norm.weight", {c.head_dim});
    w.k_norm = get("self_attn.k_norm.weight", {c.head_dim});
  }
  // The projections of one input are packed together, from one dtype.
  w.k = w.k.to(w.q.scalar_type());
  w.v = w.v.to(w.q.scalar_type());
  return w;
}

}  // namespace

NamedWeights::NamedWeights(const DecoderConfig& config, const StateDict& weights) {
  embeddings = take(weights, "model.embed_tokens.weight", {config.vocab_size, config.hidden_size});
  final_norm = take(weights, "model.norm.weight", {config.hidden_size});
  head = config.tie_embeddings ? embeddings : take(weights, "lm_head.weight", {config.vocab_size, config.hidden_size});
  for (int64_t layer = 0; layer < config.num_layers; ++layer) layers.push_back(take_layer(config, weights, layer));
}

}  // namespace troupe
