// Names and layout: which blocks a model of this configuration has, and where its layers find them.
#include "core/models/network.hpp"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <cmath>
#include <set>
#include <stdexcept>
#include <utility>

#include "core/models/parameter_shapes.hpp"

namespace troupe {
using trunk::adapter_name;
using trunk::FeedForward;
using trunk::Layer;
using trunk::Linear;

namespace {

constexpr const char* kScore = "score.weight";
constexpr const char* kHead = "lm_head.weight";
constexpr const char* kRouter = "mlp.gate.weight";
constexpr const char* kAdapterPrefix = "base_model.model.";

std::string layer_prefix(int64_t layer) {
  return "model.layers." + std::to_string(layer) + ".";
}

void check_config(const DecoderConfig& c) {
  const auto positive = [](const char* name, int64_t value) {
    if (value <= 0) throw std::invalid_argument(std::string(name) + " is " + std::to_string(value) + ", expected > 0");
  };
  positive("vocab_size", c.vocab_size);
  positive("hidden_size", c.hidden_size);
  positive("intermediate_size", c.intermediate_size);
  positive("num_layers", c.num_layers);
  positive("num_heads", c.num_heads);
  positive("num_kv_heads", c.num_kv_heads);
  positive("head_dim", c.head_dim);
  check_experts(c.moe);
  if (c.moe.experts > 0 && c.mlp_bias) throw std::invalid_argument("mlp_bias: experts have no biases");
  if (c.num_heads % c.num_kv_heads != 0)
    throw std::invalid_argument("num_heads " + std::to_string(c.num_heads) + " is no multiple of num_kv_heads " +
                                std::to_string(c.num_kv_heads));
  if (c.head_dim % 2 != 0)
    throw std::invalid_argument("head_dim " + std::to_string(c.head_dim) + " is odd: rotary embedding needs pairs");
}

// A layer's linear: its Hugging Face parts, as rows of one matrix.
struct LinearShape {
  std::string module;  // "self_attn.", "mlp." or "mlp.experts.0."
  std::vector<std::pair<std::string, int64_t>> parts;
  int64_t columns;
  bool bias;
};

struct FeedForwardShapes {
  LinearShape gate_up, down;
};

struct LayerShapes {
  LinearShape qkv, o;
  bool experts;
  std::vector<FeedForwardShapes> feed_forwards;  // one, or the experts and the shared ones

  // What an adapter may be on.
  std::vector<const LinearShape*> adaptable() const {
    if (experts) return {&qkv, &o};
    return {&qkv, &o, &feed_forwards[0].gate_up, &feed_forwards[0].down};
  }
};

LayerShapes layer_shapes(const DecoderConfig& c) {
  const int64_t q = c.num_heads * c.head_dim, kv = c.num_kv_heads * c.head_dim;
  LayerShapes shapes{{"self_attn.", {{"q_proj", q}, {"k_proj", kv}, {"v_proj", kv}}, c.hidden_size, c.qkv_bias},
                     {"self_attn.", {{"o_proj", c.hidden_size}}, q, c.o_bias},
                     c.moe.experts > 0,
                     {}};
  for (const std::string& prefix : feed_forward_prefixes(c.moe))
    shapes.feed_forwards.push_back(
        {{prefix, {{"gate_proj", c.intermediate_size}, {"up_proj", c.intermediate_size}}, c.hidden_size, c.mlp_bias},
         {prefix, {{"down_proj", c.hidden_size}}, c.intermediate_size, c.mlp_bias}});
  return shapes;
}

void append_linear(std::vector<ParameterBlock>& blocks, const std::string& prefix, const LinearShape& shape) {
  ParameterBlock weight{{}, shape.columns, true}, bias{{}, 0, false};
  for (const auto& [name, rows] : shape.parts) {
    weight.parts.push_back({prefix + shape.module + name + ".weight", rows});
    bias.parts.push_back({prefix + shape.module + name + ".bias", rows});
  }
  blocks.push_back(std::move(weight));
  if (shape.bias) blocks.push_back(std::move(bias));
}

std::vector<ParameterBlock> model_blocks(const DecoderConfig& c, bool head, bool score) {
  std::vector<ParameterBlock> blocks;
  const auto vector = [&](const std::string& name, int64_t n) { blocks.push_back({{{name, n}}, 0, false}); };
  blocks.push_back({{{"model.embed_tokens.weight", c.vocab_size}}, c.hidden_size, true});
  const LayerShapes shapes = layer_shapes(c);
  for (int64_t i = 0; i < c.num_layers; ++i) {
    const std::string prefix = layer_prefix(i);
    vector(prefix + "input_layernorm.weight", c.hidden_size);
    append_linear(blocks, prefix, shapes.qkv);
    if (c.qk_norm) {
      vector(prefix + "self_attn.q_norm.weight", c.head_dim);
      vector(prefix + "self_attn.k_norm.weight", c.head_dim);
    }
    append_linear(blocks, prefix, shapes.o);
    vector(prefix + "post_attention_layernorm.weight", c.hidden_size);
    if (c.moe.experts > 0) blocks.push_back({{{prefix + kRouter, c.moe.experts}}, c.hidden_size, true});
    for (const auto& [gate_up, down] : shapes.feed_forwards) {
      append_linear(blocks, prefix, gate_up);
      append_linear(blocks, prefix, down);
    }
  }
  vector("model.norm.weight", c.hidden_size);
  if (head) blocks.push_back({{{kHead, c.vocab_size}}, c.hidden_size, true});
  if (score) blocks.push_back({{{kScore, 1}}, c.hidden_size, true});
  return blocks;
}

// Every tensor of `state` has a place, so that a model of another family is not half loaded in silence.
void check_no_strangers(const StateDict& state, const ParameterArena& weights, bool tied) {
  for (const auto& [name, tensor] : state) {
    const bool adapter = name.starts_with(kAdapterPrefix);
    if (!weights.contains(name) && !adapter && !(tied && name == kHead))
      throw std::invalid_argument("parameter '" + name + "' does not belong to this model's configuration");
  }
}

Linear linear_of(const ParameterArena& weights, const std::string& prefix, const LinearShape& shape) {
  const std::string first = prefix + shape.module + shape.parts.front().first;
  Linear linear{weights.weight(first + ".weight"), {}, {}};
  if (shape.bias) linear.bias = weights.weight(first + ".bias");
  return linear;
}

}  // namespace

std::string trunk::adapter_name(int64_t layer, const std::string& module, char which) {
  return kAdapterPrefix + layer_prefix(layer) + module + ".lora_" + which + ".weight";
}

Decoder::Network::Network(const DecoderConfig& c, const StateDict& state, const DecoderOptions& o)
    : config(c), options(o), workspaces(o.device) {
  check_config(config);
  const bool lora = options.training == Training::kLora;
  const bool has_score = options.score_head || state.contains(kScore);
  // A scalar model may come without an output projection.
  const bool has_head = !config.tie_embeddings && (state.contains(kHead) || !has_score);
  // With adapters the score head is trained beside them, so it lives there.
  weights.emplace(model_blocks(config, has_head, has_score && !lora), options.compute,
                  options.training == Training::kFull, options.device);
  StateDict given = state;
  if (has_score && !given.contains(kScore)) given[kScore] = at::zeros({1, config.hidden_size});
  weights->load(given);
  if (lora) add_adapters(given);
  if (lora) given.erase(kScore);
  check_no_strangers(given, *weights, config.tie_embeddings);
  build_layers();
  embedding = weights->weight("model.embed_tokens.weight");
  final_norm = weights->weight("model.norm.weight");
  if (config.tie_embeddings)
    head = embedding;
  else if (has_head)
    head = weights->weight(kHead);
  if (has_score) score = lora ? adapters->weight(std::string(kAdapterPrefix) + kScore) : weights->weight(kScore);
}

void Decoder::Network::build_layers() {
  const LayerShapes shapes = layer_shapes(config);
  const auto adapt = [&](int64_t i, Linear& linear, const LinearShape& shape) {
    int64_t begin = 0;
    for (const auto& [name, rows] : shape.parts) {
      const std::string module = shape.module + name;
      if (adapters && adapters->contains(adapter_name(i, module, 'A')))
        linear.adapters.push_back({adapters->weight(adapter_name(i, module, 'A')),
                                   adapters->weight(adapter_name(i, module, 'B')), begin, rows,
                                   options.lora.alpha / static_cast<double>(options.lora.rank)});
      begin += rows;
    }
  };
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const std::string prefix = layer_prefix(i);
    Layer layer;
    layer.attention_norm = weights->weight(prefix + "input_layernorm.weight");
    layer.feed_forward_norm = weights->weight(prefix + "post_attention_layernorm.weight");
    if (config.qk_norm)
      layer.head_norms = {weights->weight(prefix + "self_attn.q_norm.weight"),
                          weights->weight(prefix + "self_attn.k_norm.weight")};
    const auto build = [&](const LinearShape& shape) {
      Linear linear = linear_of(*weights, prefix, shape);
      adapt(i, linear, shape);
      return linear;
    };
    layer.qkv = build(shapes.qkv);
    layer.o = build(shapes.o);
    std::vector<FeedForward> feed_forwards;
    for (const auto& [gate_up, down] : shapes.feed_forwards) feed_forwards.push_back({build(gate_up), build(down)});
    if (config.moe.experts > 0)
      layer.experts = {weights->weight(prefix + kRouter), std::move(feed_forwards)};
    else
      layer.dense = std::move(feed_forwards.front());
    layers.push_back(std::move(layer));
  }
}

void Decoder::Network::add_adapters(const StateDict& state) {
  const LoraConfig& lora = options.lora;
  if (lora.rank <= 0) throw std::invalid_argument("lora rank is " + std::to_string(lora.rank) + ", expected > 0");
  const std::set<std::string> targets(lora.target_modules.begin(), lora.target_modules.end());
  std::set<std::string> known;
  std::vector<ParameterBlock> blocks;
  const LayerShapes shapes = layer_shapes(config);
  for (int64_t i = 0; i < config.num_layers; ++i)
    for (const LinearShape* shape : shapes.adaptable())
      for (const auto& [name, rows] : shape->parts) {
        known.insert(name);
        if (!targets.contains(name)) continue;
        blocks.push_back({{{adapter_name(i, shape->module + name, 'A'), lora.rank}}, shape->columns, true});
        blocks.push_back({{{adapter_name(i, shape->module + name, 'B'), rows}}, lora.rank, true});
      }
  for (const std::string& target : targets)
    if (!known.contains(target))
      throw std::invalid_argument("lora target module '" + target + "': expected q_proj, k_proj, v_proj" +
                                  (config.moe.experts > 0 ? " or o_proj (experts take no adapters)"
                                                          : ", o_proj, gate_proj, up_proj or down_proj"));
  const std::string score_name = std::string(kAdapterPrefix) + kScore;
  if (state.contains(kScore)) blocks.push_back({{{score_name, 1}}, config.hidden_size, true});
  adapters.emplace(std::move(blocks), options.compute, true, options.device);

  // PEFT's start: A uniform in +-1 / sqrt(in) (Kaiming with a = sqrt 5), B zero; then whatever is given.
  StateDict start = adapters->views(adapters->master());
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(lora.seed);
  bool given = false;
  for (auto& [name, tensor] : start) {
    if (const auto found = state.find(name); found != state.end()) {
      tensor = found->second;
      given = true;
    } else if (name == score_name) {
      tensor = state.at(kScore);
    } else if (name.ends_with(".lora_A.weight")) {
      const double bound = 1.0 / std::sqrt(static_cast<double>(tensor.size(1)));
      tensor = at::empty(tensor.sizes(), at::kFloat).uniform_(-bound, bound, generator);
    } else if (given && !state.contains(name)) {
      throw std::invalid_argument("parameter '" + name + "' is missing");
    }
  }
  adapters->load(start);
  for (const auto& [name, tensor] : state)
    if (name.starts_with(kAdapterPrefix) && !adapters->contains(name))
      throw std::invalid_argument("adapter '" + name + "' is no target of this LoRA configuration");
}

}  // namespace troupe
