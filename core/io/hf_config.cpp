// config.json of transformers 4 and 5 <-> DecoderConfig.
#include <algorithm>

#include "core/config.hpp"
#include "core/io/model_folder.hpp"
#include "core/models/minimind.hpp"

namespace troupe {
namespace {

using Ids = std::vector<int64_t>;

// The keys that matter; others are the library's own business. A null value counts as absent.
struct HfConfig {
  Required<std::string> model_type;
  std::optional<int64_t> vocab_size, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads,
      num_key_value_heads, head_dim, max_position_embeddings;
  std::optional<double> rms_norm_eps, rope_theta, partial_rotary_factor;
  std::optional<bool> tie_word_embeddings, attention_bias, mlp_bias, use_sliding_window;
  std::optional<std::string> hidden_act;
  // MiniMind's own.
  std::optional<bool> inference_rope_scaling, use_moe, norm_topk_prob, seq_aux;
  std::optional<int64_t> n_routed_experts, num_experts_per_tok, n_shared_experts;
  std::optional<double> aux_loss_alpha;
  std::optional<std::string> scoring_func;
  std::optional<std::vector<std::string>> layer_types;
  std::optional<int64_t> bos_token_id, pad_token_id;
  Json eos_token_id, rope_parameters, rope_scaling, quantization_config;
  static constexpr std::tuple kFields{Field{"model_type", &HfConfig::model_type},
                                      Field{"vocab_size", &HfConfig::vocab_size},
                                      Field{"hidden_size", &HfConfig::hidden_size},
                                      Field{"intermediate_size", &HfConfig::intermediate_size},
                                      Field{"num_hidden_layers", &HfConfig::num_hidden_layers},
                                      Field{"num_attention_heads", &HfConfig::num_attention_heads},
                                      Field{"num_key_value_heads", &HfConfig::num_key_value_heads},
                                      Field{"head_dim", &HfConfig::head_dim},
                                      Field{"max_position_embeddings", &HfConfig::max_position_embeddings},
                                      Field{"rms_norm_eps", &HfConfig::rms_norm_eps},
                                      Field{"rope_theta", &HfConfig::rope_theta},
                                      Field{"partial_rotary_factor", &HfConfig::partial_rotary_factor},
                                      Field{"tie_word_embeddings", &HfConfig::tie_word_embeddings},
                                      Field{"attention_bias", &HfConfig::attention_bias},
                                      Field{"mlp_bias", &HfConfig::mlp_bias},
                                      Field{"use_sliding_window", &HfConfig::use_sliding_window},
                                      Field{"hidden_act", &HfConfig::hidden_act},
                                      Field{"inference_rope_scaling", &HfConfig::inference_rope_scaling},
                                      Field{"use_moe", &HfConfig::use_moe},
                                      Field{"norm_topk_prob", &HfConfig::norm_topk_prob},
                                      Field{"seq_aux", &HfConfig::seq_aux},
                                      Field{"n_routed_experts", &HfConfig::n_routed_experts},
                                      Field{"num_experts_per_tok", &HfConfig::num_experts_per_tok},
                                      Field{"n_shared_experts", &HfConfig::n_shared_experts},
                                      Field{"aux_loss_alpha", &HfConfig::aux_loss_alpha},
                                      Field{"scoring_func", &HfConfig::scoring_func},
                                      Field{"layer_types", &HfConfig::layer_types},
                                      Field{"bos_token_id", &HfConfig::bos_token_id},
                                      Field{"pad_token_id", &HfConfig::pad_token_id},
                                      Field{"eos_token_id", &HfConfig::eos_token_id},
                                      Field{"rope_parameters", &HfConfig::rope_parameters},
                                      Field{"rope_scaling", &HfConfig::rope_scaling},
                                      Field{"quantization_config", &HfConfig::quantization_config}};
};
TROUPE_FIELDS_COMPLETE(HfConfig);

struct HfRope {
  std::optional<std::string> rope_type, type;
  std::optional<double> rope_theta, factor, attention_factor, mscale, mscale_all_dim, beta_fast, beta_slow,
      low_freq_factor, high_freq_factor, partial_rotary_factor;
  std::optional<int64_t> original_max_position_embeddings;
  std::optional<bool> truncate;
  static constexpr std::tuple kFields{
      Field{"rope_type", &HfRope::rope_type},
      Field{"type", &HfRope::type},
      Field{"rope_theta", &HfRope::rope_theta},
      Field{"factor", &HfRope::factor},
      Field{"attention_factor", &HfRope::attention_factor},
      Field{"mscale", &HfRope::mscale},
      Field{"mscale_all_dim", &HfRope::mscale_all_dim},
      Field{"beta_fast", &HfRope::beta_fast},
      Field{"beta_slow", &HfRope::beta_slow},
      Field{"low_freq_factor", &HfRope::low_freq_factor},
      Field{"high_freq_factor", &HfRope::high_freq_factor},
      Field{"partial_rotary_factor", &HfRope::partial_rotary_factor},
      Field{"original_max_position_embeddings", &HfRope::original_max_position_embeddings},
      Field{"truncate", &HfRope::truncate}};
};
TROUPE_FIELDS_COMPLETE(HfRope);

template <class T>
Json known_keys(const Json& object) {
  Json out = Json::object();
  for_each_field(T{}, [&](std::string_view name, const auto&) {
    const auto it = object.find(name);
    if (it != object.end() && !it->is_null()) out[std::string(name)] = *it;
  });
  return out;
}

[[noreturn]] void refuse(const JsonPath& where, const std::string& reason) {
  throw std::runtime_error(where.prefix() + reason);
}

int64_t whole_number(const std::optional<int64_t>& value, std::optional<int64_t> absent, const JsonPath& where,
                     int64_t largest = INT32_MAX) {
  if (!value && !absent) refuse(where, "missing; expected an integer");
  const int64_t n = value ? *value : *absent;
  if (n < 1 || n > largest)
    refuse(where, "expected an integer from 1 to " + std::to_string(largest) + ", found " + std::to_string(n));
  return n;
}

Ids read_ids(const Json& json, const JsonPath& where) {
  Ids ids;
  for (const Json& id : json.is_array() ? json : Json::array({json})) {
    if (id.is_null()) continue;
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > INT32_MAX)
      refuse(where, "expected a token id, found " + detail::found(id));
    ids.push_back(id.get<int64_t>());
  }
  return ids;
}

void check_rope(const RopeConfig& rope, const JsonPath& where) {
  const bool scaled = rope.type != "default";
  if (rope.theta <= 0) refuse(where.key("rope_theta"), "expected a positive number");
  if (scaled && rope.factor < 1) refuse(where.key("factor"), "expected a number of at least 1");
  if (rope.original_max_positions < 0)
    refuse(where.key("original_max_position_embeddings"), "expected a positive integer");
  if (rope.type == "llama3" && !(rope.low_freq_factor > 0 && rope.high_freq_factor > rope.low_freq_factor))
    refuse(where, "expected 0 < low_freq_factor < high_freq_factor");
  if (rope.type == "yarn" && !(rope.beta_slow > 0 && rope.beta_fast >= rope.beta_slow && rope.attention_factor >= 0))
    refuse(where, "expected 0 < beta_slow <= beta_fast and attention_factor >= 0");
}

// rope_parameters (transformers 5) or rope_scaling beside rope_theta (4); the former wins where both stand.
RopeConfig rope_of(const HfConfig& hf, int64_t max_positions, double theta, const JsonPath& root) {
  const bool five = !hf.rope_parameters.is_null();
  const Json& json = five ? hf.rope_parameters : hf.rope_scaling;
  const JsonPath where = root.key(five ? "rope_parameters" : "rope_scaling");
  RopeConfig rope;
  rope.theta = hf.rope_theta.value_or(theta);
  if (json.is_null()) {
    check_rope(rope, where);
    return rope;
  }
  if (!json.is_object()) refuse(where, "expected an object, found " + detail::found(json));
  for (const auto& [key, value] : json.items())
    if (value.is_object()) refuse(where.key(key), "settings per kind of layer are not supported");
  const HfRope r = from_json<HfRope>(known_keys<HfRope>(json), where);
  rope.type = r.rope_type ? *r.rope_type : r.type.value_or("default");
  rope.theta = r.rope_theta.value_or(rope.theta);
  if (r.partial_rotary_factor.value_or(1.0) != 1.0) refuse(where.key("partial_rotary_factor"), "only 1 is supported");
  if (rope.type == "default") {
    check_rope(rope, where);
    return rope;
  }
  const std::vector<std::string_view> types = {"linear", "dynamic", "yarn", "llama3"};
  if (std::find(types.begin(), types.end(), rope.type) == types.end())
    refuse(where.key("rope_type"),
           "\"" + rope.type + "\" is not supported; known: default, linear, dynamic, yarn, llama3");
  // The dynamic type counts from max_position_embeddings, whatever else the object says.
  if (rope.type != "dynamic") rope.original_max_positions = r.original_max_position_embeddings.value_or(0);
  if (!r.factor && !(rope.type == "yarn" && rope.original_max_positions > 0))
    refuse(where.key("factor"), "missing; expected a number");
  rope.factor =
      r.factor ? *r.factor : static_cast<double>(max_positions) / static_cast<double>(rope.original_max_positions);
  rope.attention_factor = r.attention_factor.value_or(0.0);
  rope.mscale = r.mscale.value_or(0.0);
  rope.mscale_all_dim = r.mscale_all_dim.value_or(0.0);
  if (r.beta_fast.value_or(0) != 0) rope.beta_fast = *r.beta_fast;
  if (r.beta_slow.value_or(0) != 0) rope.beta_slow = *r.beta_slow;
  rope.truncate = r.truncate.value_or(true);
  if (rope.type == "llama3") {
    if (!r.low_freq_factor || !r.high_freq_factor) refuse(where, "llama3 needs low_freq_factor and high_freq_factor");
    rope.low_freq_factor = *r.low_freq_factor;
    rope.high_freq_factor = *r.high_freq_factor;
  }
  check_rope(rope, where);
  return rope;
}

// What the description cannot express must not be passed over.
void refuse_unsupported(const HfConfig& hf, const JsonPath& where) {
  if (hf.hidden_act.value_or("silu") != "silu") refuse(where.key("hidden_act"), "only \"silu\" is supported");
  if (hf.use_sliding_window.value_or(false)) refuse(where.key("use_sliding_window"), "only false is supported");
  if (hf.use_moe.value_or(false) && *hf.model_type != "minimind")
    refuse(where.key("use_moe"), "only minimind has experts");
  if (hf.partial_rotary_factor.value_or(1.0) != 1.0) refuse(where.key("partial_rotary_factor"), "only 1 is supported");
  if (!hf.quantization_config.is_null())
    refuse(where.key("quantization_config"), "quantized weights are not supported");
  for (const std::string& type : hf.layer_types.value_or(std::vector<std::string>()))
    if (type != "full_attention") refuse(where.key("layer_types"), "only \"full_attention\" is supported");
}

MoeConfig experts_of(const HfConfig& hf, const JsonPath& where) {
  MoeConfig moe;
  if (!hf.use_moe.value_or(false)) return moe;
  moe.experts = whole_number(hf.n_routed_experts, 4, where.key("n_routed_experts"), kMaxExperts);
  moe.per_token = whole_number(hf.num_experts_per_tok, 2, where.key("num_experts_per_tok"), moe.experts);
  moe.shared_experts = hf.n_shared_experts.value_or(1);
  if (moe.shared_experts < 0 || moe.shared_experts > kMaxExperts)
    refuse(where.key("n_shared_experts"), "expected an integer from 0 to " + std::to_string(kMaxExperts) + ", found " +
                                              std::to_string(moe.shared_experts));
  moe.normalise = hf.norm_topk_prob.value_or(true);
  moe.aux_coefficient = hf.aux_loss_alpha.value_or(0.01);
  if (!(moe.aux_coefficient >= 0)) refuse(where.key("aux_loss_alpha"), "expected a number of at least 0");
  moe.per_sequence = hf.seq_aux.value_or(true);
  if (hf.scoring_func.value_or("softmax") != "softmax")
    refuse(where.key("scoring_func"), "only \"softmax\" is supported");
  return moe;
}

void check_shapes(const DecoderConfig& c, const JsonPath& where) {
  if (c.num_heads % c.num_kv_heads != 0)
    refuse(where.key("num_key_value_heads"),
           "expected a divisor of num_attention_heads = " + std::to_string(c.num_heads));
  if (c.head_dim % 2 != 0)
    refuse(where.key("head_dim"), "expected an even number, found " + std::to_string(c.head_dim));
  if (!(c.rms_norm_eps >= 0 && c.rms_norm_eps < 1)) refuse(where.key("rms_norm_eps"), "expected a number from 0 to 1");
}

OrderedJson rope_json(const RopeConfig& rope) {
  OrderedJson json;
  json["rope_type"] = rope.type;
  json["rope_theta"] = rope.theta;
  if (rope.type == "default") return json;
  json["factor"] = rope.factor;
  if (rope.original_max_positions > 0) json["original_max_position_embeddings"] = rope.original_max_positions;
  if (rope.type == "llama3") {
    json["low_freq_factor"] = rope.low_freq_factor;
    json["high_freq_factor"] = rope.high_freq_factor;
  }
  if (rope.type == "yarn") {
    if (rope.attention_factor > 0) json["attention_factor"] = rope.attention_factor;
    if (rope.mscale > 0) json["mscale"] = rope.mscale;
    if (rope.mscale_all_dim > 0) json["mscale_all_dim"] = rope.mscale_all_dim;
    json["beta_fast"] = rope.beta_fast;
    json["beta_slow"] = rope.beta_slow;
    if (!rope.truncate) json["truncate"] = false;
  }
  return json;
}

// The architecture of transformers, or MiniMind's own, that computes what the configuration says.
struct Architecture {
  const char* model_type;
  const char* class_prefix;
};

Architecture architecture_of(const DecoderConfig& c) {
  if (c.moe.experts > 0) {
    if (c.qkv_bias || c.o_bias || c.mlp_bias)
      throw std::invalid_argument("minimind, the architecture with experts, has no biases");
    return {"minimind", "MiniMind"};
  }
  if (c.qk_norm && c.qkv_bias == c.o_bias && !c.mlp_bias) return {"qwen3", "Qwen3"};
  if (!c.qk_norm && c.qkv_bias && !c.o_bias && !c.mlp_bias && c.head_dim * c.num_heads == c.hidden_size)
    return {"qwen2", "Qwen2"};
  if (!c.qk_norm && c.qkv_bias == c.o_bias) return {"llama", "Llama"};
  throw std::invalid_argument("no architecture of transformers has this combination of biases and query/key norms");
}

OrderedJson ids_json(const Ids& ids) {
  if (ids.empty()) return nullptr;
  return ids.size() == 1 ? OrderedJson(ids[0]) : OrderedJson(ids);
}

}  // namespace

DecoderConfig parse_hf_config(const std::string& config_json, const std::string& generation_config_json,
                              const std::string& origin) {
  const JsonPath where(origin);
  const Json json = parse_json(config_json, origin);
  if (!json.is_object()) refuse(where, "expected an object");
  const HfConfig hf = from_json<HfConfig>(known_keys<HfConfig>(json), where);
  const std::string& family = *hf.model_type;
  if (family != "llama" && family != "qwen2" && family != "qwen3" && family != "minimind")
    refuse(where.key("model_type"), "\"" + family + "\" is not supported; known: llama, qwen2, qwen3, minimind");
  refuse_unsupported(hf, where);

  // MiniMind's own writer leaves out what equals its defaults; transformers writes every size.
  const bool mini = family == "minimind";
  const auto mini_default = [&](int64_t n) { return mini ? std::optional(n) : std::nullopt; };
  DecoderConfig c;
  c.family = family;
  c.vocab_size = whole_number(hf.vocab_size, mini_default(6400), where.key("vocab_size"));
  c.hidden_size = whole_number(hf.hidden_size, mini_default(512), where.key("hidden_size"));
  c.intermediate_size = whole_number(hf.intermediate_size, mini_default((c.hidden_size * 8 / 3 + 63) / 64 * 64),
                                     where.key("intermediate_size"));
  c.num_layers = whole_number(hf.num_hidden_layers, mini_default(8), where.key("num_hidden_layers"), kMaxLayers);
  c.num_heads = whole_number(hf.num_attention_heads, mini_default(8), where.key("num_attention_heads"));
  c.num_kv_heads = whole_number(hf.num_key_value_heads, mini ? 2 : c.num_heads, where.key("num_key_value_heads"));
  if (!hf.head_dim && c.hidden_size % c.num_heads != 0)
    refuse(where.key("num_attention_heads"), "expected a divisor of hidden_size = " + std::to_string(c.hidden_size));
  c.head_dim = whole_number(hf.head_dim, family == "qwen3" ? 128 : c.hidden_size / c.num_heads, where.key("head_dim"));
  c.max_positions =
      whole_number(hf.max_position_embeddings, family == "llama" ? 2048 : 32768, where.key("max_position_embeddings"));
  c.rms_norm_eps = hf.rms_norm_eps.value_or(mini ? 1e-5 : 1e-6);
  c.rope = rope_of(hf, c.max_positions, mini ? 1e6 : 1e4, where);
  if (mini && hf.inference_rope_scaling.value_or(false) && c.rope.type == "default")
    c.rope = minimind_rope(c.rope.theta, true);
  c.tie_embeddings = hf.tie_word_embeddings.value_or(mini);
  const bool bias = hf.attention_bias.value_or(false);
  c.qkv_bias = family == "qwen2" || bias;
  c.o_bias = family != "qwen2" && bias;
  c.mlp_bias = family == "llama" && hf.mlp_bias.value_or(false);
  c.qk_norm = family == "qwen3";
  if (mini) c.moe = experts_of(hf, where);
  c.bos_token = hf.bos_token_id.value_or(mini ? 1 : -1);
  c.pad_token = hf.pad_token_id.value_or(mini ? 0 : -1);
  c.eos_tokens = mini && hf.eos_token_id.is_null() ? Ids{2} : read_ids(hf.eos_token_id, where.key("eos_token_id"));
  check_shapes(c, where);
  if (!generation_config_json.empty()) {
    const JsonPath generation("generation_config.json");
    const Json g = parse_json(generation_config_json, "generation_config.json");
    if (!g.is_object()) refuse(generation, "expected an object");
    if (g.contains("eos_token_id") && !g["eos_token_id"].is_null())
      c.eos_tokens = read_ids(g["eos_token_id"], generation.key("eos_token_id"));
  }
  return c;
}

std::string format_hf_config(const DecoderConfig& c, at::ScalarType dtype, bool classifier) {
  const Architecture architecture = architecture_of(c);
  const char* type = dtype == at::kFloat ? "float32" : dtype == at::kBFloat16 ? "bfloat16" : "float16";
  OrderedJson json;
  json["architectures"] = {architecture.class_prefix +
                           std::string(classifier ? "ForSequenceClassification" : "ForCausalLM")};
  json["model_type"] = architecture.model_type;
  json["vocab_size"] = c.vocab_size;
  json["hidden_size"] = c.hidden_size;
  json["intermediate_size"] = c.intermediate_size;
  json["num_hidden_layers"] = c.num_layers;
  json["num_attention_heads"] = c.num_heads;
  json["num_key_value_heads"] = c.num_kv_heads;
  if (std::string_view(architecture.model_type) != "qwen2") json["head_dim"] = c.head_dim;
  json["hidden_act"] = "silu";
  json["max_position_embeddings"] = c.max_positions;
  json["rms_norm_eps"] = c.rms_norm_eps;
  // Both spellings: transformers 5 reads the first, version 4 and other readers the other two.
  json["rope_parameters"] = rope_json(c.rope);
  json["rope_theta"] = c.rope.theta;
  json["rope_scaling"] = c.rope.type == "default" ? OrderedJson(nullptr) : rope_json(c.rope);
  json["tie_word_embeddings"] = c.tie_embeddings;
  const std::string_view model_type = architecture.model_type;
  if (model_type == "llama" || model_type == "qwen3") json["attention_bias"] = c.o_bias;
  if (std::string_view(architecture.model_type) == "llama") json["mlp_bias"] = c.mlp_bias;
  if (c.moe.experts > 0) {
    json["inference_rope_scaling"] = c.rope.type == "yarn";
    json["use_moe"] = true;
    json["n_routed_experts"] = c.moe.experts;
    json["num_experts_per_tok"] = c.moe.per_token;
    json["n_shared_experts"] = c.moe.shared_experts;
    json["norm_topk_prob"] = c.moe.normalise;
    json["aux_loss_alpha"] = c.moe.aux_coefficient;
    json["seq_aux"] = c.moe.per_sequence;
    json["scoring_func"] = "softmax";
  }
  if (classifier) {
    json["id2label"] = {{"0", "LABEL_0"}};
    json["label2id"] = {{"LABEL_0", 0}};
  }
  json["bos_token_id"] = c.bos_token < 0 ? OrderedJson(nullptr) : OrderedJson(c.bos_token);
  json["eos_token_id"] = ids_json(c.eos_tokens);
  json["pad_token_id"] = c.pad_token < 0 ? OrderedJson(nullptr) : OrderedJson(c.pad_token);
  json["dtype"] = type;
  json["torch_dtype"] = type;
  json["use_cache"] = true;
  return json.dump(2) + "\n";
}

}  // namespace troupe
