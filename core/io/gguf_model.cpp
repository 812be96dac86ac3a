#include "core/io/gguf_model.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <charconv>
#include <numbers>
#include <stdexcept>

#include "core/io/model_folder.hpp"

namespace troupe {
namespace {

constexpr std::string_view kRopeFactors = "rope_freqs.weight";  // float32 [head_dim / 2]

struct NamePair {
  std::string_view gguf, hf;
};
constexpr NamePair kModelNames[] = {
    {"token_embd", "model.embed_tokens"}, {"output_norm", "model.norm"}, {"output", "lm_head"}};
constexpr NamePair kLayerNames[] = {{"attn_norm", "input_layernorm"},    {"ffn_norm", "post_attention_layernorm"},
                                    {"attn_q", "self_attn.q_proj"},      {"attn_k", "self_attn.k_proj"},
                                    {"attn_v", "self_attn.v_proj"},      {"attn_output", "self_attn.o_proj"},
                                    {"attn_q_norm", "self_attn.q_norm"}, {"attn_k_norm", "self_attn.k_norm"},
                                    {"ffn_gate", "mlp.gate_proj"},       {"ffn_up", "mlp.up_proj"},
                                    {"ffn_down", "mlp.down_proj"}};

// "blk.3.attn_q.weight" -> "model.layers.3.self_attn.q_proj.weight"; "" where there is none.
std::string hf_name(std::string_view name) {
  const auto dot = name.rfind('.');
  if (dot == name.npos) return "";
  const std::string_view kind = name.substr(dot);
  if (kind != ".weight" && kind != ".bias") return "";
  std::string_view stem = name.substr(0, dot);
  std::string prefix;
  std::span<const NamePair> pairs = kModelNames;
  if (stem.starts_with("blk.")) {
    stem.remove_prefix(4);
    const auto end = stem.find('.');
    if (end == stem.npos || end == 0 || stem.substr(0, end).find_first_not_of("0123456789") != stem.npos) return "";
    prefix = std::string("model.layers.").append(stem.substr(0, end)).append(".");
    stem.remove_prefix(end + 1);
    pairs = kLayerNames;
  }
  for (const NamePair& pair : pairs)
    if (pair.gguf == stem) return prefix.append(pair.hf).append(kind);
  return "";
}

[[noreturn]] void refuse(const GgufFile& file, const std::string& reason) {
  throw std::runtime_error(file.path().string() + ": " + reason);
}

int64_t size_of(const GgufFile& file, const std::string& key, int64_t largest = INT32_MAX) {
  const int64_t n = file.get_integer(key);
  if (n < 1 || n > largest) refuse(file, "metadata \"" + key + "\" is " + std::to_string(n));
  return n;
}

// Llama-3 files carry, instead of the scaling's settings, what each frequency is divided by
// (convert_hf_to_gguf.py: generate_extra_tensors). The published models use low 1, high 4 and 8192 positions; the
// factor is the largest divisor. Whether that is so is checked, not assumed.
void recover_llama3(const GgufFile& file, DecoderConfig& c) {
  std::vector<float> divisors(static_cast<std::size_t>(c.head_dim / 2));
  const GgufTensor& tensor = file.tensors().find(kRopeFactors)->second;
  if (tensor.shape != std::vector<int64_t>{c.head_dim / 2})
    refuse(file, "rope_freqs.weight does not have head_dim / 2 elements");
  file.read(std::string(kRopeFactors), divisors);
  RopeConfig rope = c.rope;
  rope.type = "llama3";
  rope.original_max_positions = 8192;
  rope.factor = std::round(*std::max_element(divisors.begin(), divisors.end()) * 1000) / 1000;
  for (std::size_t i = 0; i < divisors.size(); ++i) {
    const double wavelength =
        2 * std::numbers::pi * std::pow(rope.theta, 2.0 * static_cast<double>(i) / static_cast<double>(c.head_dim));
    const double ratio = static_cast<double>(rope.original_max_positions) / wavelength;
    const double smooth =
        std::clamp((ratio - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor), 0.0, 1.0);
    const double expected = 1.0 / ((1 - smooth) / rope.factor + smooth);
    if (!(std::abs(divisors[i] - expected) <= 1e-3 * expected))
      refuse(file, "rope_freqs.weight is not the Llama-3 scaling with low 1, high 4, 8192 positions: element " +
                       std::to_string(i) + " is " + std::to_string(divisors[i]) + ", expected " +
                       std::to_string(expected));
  }
  c.rope = rope;
}

RopeConfig rope_of(const GgufFile& file, const std::string& arch) {
  RopeConfig rope;
  rope.theta = file.find_number(arch + ".rope.freq_base").value_or(10000.0);
  if (!(rope.theta > 0)) refuse(file, "metadata \"" + arch + ".rope.freq_base\" is not positive");
  const std::string prefix = arch + ".rope.scaling.";
  const std::string type = file.find_string(prefix + "type").value_or("none");
  if (type == "none") return rope;
  if (type != "linear" && type != "yarn")
    refuse(file, "metadata \"" + prefix + "type\": \"" + type + "\" is not supported");
  rope.type = type;
  rope.factor = file.get_number(prefix + "factor");
  if (!(rope.factor >= 1)) refuse(file, "metadata \"" + prefix + "factor\" is less than 1");
  if (type == "linear") return rope;
  rope.original_max_positions = size_of(file, prefix + "original_context_length");
  rope.beta_fast = file.find_number(prefix + "yarn_beta_fast").value_or(rope.beta_fast);
  rope.beta_slow = file.find_number(prefix + "yarn_beta_slow").value_or(rope.beta_slow);
  // llama.cpp multiplies this with the factor that transformers derives by itself.
  const double attention = file.find_number(prefix + "yarn_attn_factor").value_or(1.0);
  if (attention != 1.0) rope.attention_factor = attention * (0.1 * std::log(rope.factor) + 1.0);
  return rope;
}

// Transformers splits a head's dimensions in halves (i, i + d/2) where GGUF's llama has pairs (2i, 2i + 1): the
// converter interleaves the rows of each head, this puts them back.
at::Tensor unpermute(const at::Tensor& rows, int64_t heads) {
  const int64_t half = rows.size(0) / heads / 2;
  const int64_t columns = rows.numel() / rows.size(0);
  return rows.reshape({heads, half, 2, columns}).transpose(1, 2).reshape(rows.sizes()).contiguous();
}

}  // namespace

DecoderConfig gguf_config(const GgufFile& file) {
  const std::string arch = file.get_string("general.architecture");
  if (arch != "llama" && arch != "qwen2" && arch != "qwen3")
    refuse(file, "metadata \"general.architecture\": \"" + arch + "\" is not supported; known: llama, qwen2, qwen3");
  if (file.find_integer(arch + ".expert_count").value_or(0) > 0) refuse(file, "mixtures of experts are not supported");
  const auto embedding = file.tensors().find("token_embd.weight");
  if (embedding == file.tensors().end() || embedding->second.shape.size() != 2)
    refuse(file, "tensor \"token_embd.weight\" [vocabulary, width] is missing");
  DecoderConfig c;
  c.family = arch;
  c.vocab_size = embedding->second.shape[0];
  c.hidden_size = size_of(file, arch + ".embedding_length");
  c.intermediate_size = size_of(file, arch + ".feed_forward_length");
  c.num_layers = size_of(file, arch + ".block_count", kMaxLayers);
  c.num_heads = size_of(file, arch + ".attention.head_count");
  c.num_kv_heads =
      file.has(arch + ".attention.head_count_kv") ? size_of(file, arch + ".attention.head_count_kv") : c.num_heads;
  c.head_dim = file.has(arch + ".attention.key_length") ? size_of(file, arch + ".attention.key_length")
                                                        : c.hidden_size / c.num_heads;
  if (c.num_heads % c.num_kv_heads != 0 || c.head_dim % 2 != 0 || c.head_dim == 0)
    refuse(file, "head counts " + std::to_string(c.num_heads) + " and " + std::to_string(c.num_kv_heads) +
                     " or a head width of " + std::to_string(c.head_dim) + " make no sense");
  if (file.find_integer(arch + ".rope.dimension_count").value_or(c.head_dim) != c.head_dim)
    refuse(file,
           "metadata \"" + arch + ".rope.dimension_count\" is not the head's width: partial rotation is not supported");
  c.max_positions = size_of(file, arch + ".context_length");
  c.rms_norm_eps = file.get_number(arch + ".attention.layer_norm_rms_epsilon");
  c.rope = rope_of(file, arch);
  c.tie_embeddings = !file.tensors().contains("output.weight");
  c.qkv_bias = file.tensors().contains("blk.0.attn_q.bias");
  c.o_bias = file.tensors().contains("blk.0.attn_output.bias");
  c.mlp_bias = file.tensors().contains("blk.0.ffn_down.bias");
  c.qk_norm = file.tensors().contains("blk.0.attn_q_norm.weight");
  c.bos_token = file.find_integer("tokenizer.ggml.bos_token_id").value_or(-1);
  c.pad_token = file.find_integer("tokenizer.ggml.padding_token_id").value_or(-1);
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"})
    if (const auto id = file.find_integer(key); id && std::count(c.eos_tokens.begin(), c.eos_tokens.end(), *id) == 0)
      c.eos_tokens.push_back(*id);
  if (file.tensors().contains(kRopeFactors)) recover_llama3(file, c);
  return c;
}

std::map<std::string, GgufParameter> gguf_parameters(const GgufFile& file) {
  std::map<std::string, GgufParameter> parameters;
  for (const auto& [name, tensor] : file.tensors()) {
    if (name == kRopeFactors) continue;
    const std::string hf = hf_name(name);
    if (hf.empty()) refuse(file, "tensor \"" + name + "\" has no place in a decoder of these families");
    // "blk.1" and "blk.01" would meet here.
    if (!parameters.emplace(hf, GgufParameter{name, tensor.shape}).second)
      refuse(file, "two tensors are \"" + hf + "\"");
  }
  return parameters;
}

StateDict gguf_weights(const GgufFile& file, const DecoderConfig& config, at::ScalarType dtype) {
  struct Item {
    const GgufParameter parameter;
    at::Tensor* out;
  };
  StateDict weights;
  std::vector<Item> items;
  for (const auto& [name, parameter] : gguf_parameters(file)) items.push_back({parameter, &weights[name]});
  at::parallel_for(0, static_cast<int64_t>(items.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Item& item = items[static_cast<std::size_t>(i)];
      const std::string& name = item.parameter.name;
      at::Tensor values = at::empty(item.parameter.shape, at::kFloat);
      file.read(name, {values.mutable_data_ptr<float>(), static_cast<std::size_t>(values.numel())});
      const bool query = name.find(".attn_q.") != name.npos, key = name.find(".attn_k.") != name.npos;
      if (config.family == "llama" && (query || key)) {
        const int64_t heads = query ? config.num_heads : config.num_kv_heads;
        if (values.size(0) != heads * config.head_dim)
          refuse(file, "tensor \"" + name + "\" has " + std::to_string(values.size(0)) + " rows, expected " +
                           std::to_string(heads * config.head_dim));
        values = unpermute(values, heads);
      }
      *item.out = values.to(dtype);
    }
  });
  return weights;
}

}  // namespace troupe
