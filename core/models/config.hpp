// What a decoder of the Llama family is: one description for Llama, SmolLM2, Qwen2/2.5, Qwen3 and MiniMind dense.
// Read from config.json or GGUF metadata (core/io), consumed by training (core/models) and generation (core/generate).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace troupe {

// Rotary position embedding, half rotation: the pair of dimension i is i + head_dim / 2.
// Types and formulas as in transformers' modeling_rope_utils: default, linear, dynamic, yarn, llama3.
struct RopeConfig {
  std::string type = "default";
  double theta = 10000.0;
  double factor = 1.0;                                   // linear, dynamic, yarn, llama3
  int64_t original_max_positions = 0;                    // dynamic, yarn, llama3; 0: DecoderConfig::max_positions
  double attention_factor = 0.0;                         // yarn; 0: derived from factor (0.1 ln(factor) + 1)
  double mscale = 0.0, mscale_all_dim = 0.0;             // yarn; 0: unset
  double beta_fast = 32.0, beta_slow = 1.0;              // yarn
  bool truncate = true;                                  // yarn: round the correction range to whole dimensions
  double low_freq_factor = 1.0, high_freq_factor = 4.0;  // llama3
};

// A feed-forward layer of experts, each a SwiGLU of intermediate_size (MiniMind's mixture of experts): softmax of the
// router's scores, the best `per_token` of them, their weights made to add up to 1, and the shared experts beside them.
// Names: mlp.gate.weight [experts, D] (the router), mlp.experts.J.{gate,up,down}_proj.weight,
// mlp.shared_experts.J.{gate,up,down}_proj.weight.
struct MoeConfig {
  int64_t experts = 0;  // 0: dense
  int64_t per_token = 2;
  int64_t shared_experts = 1;
  bool normalise = true;  // weights of the chosen ones add up to 1 (when per_token > 1)
  // Load-balancing loss of one layer, c = aux_coefficient, e over experts:
  //   per_sequence: c * mean_b sum_e count[b, e] mean_t p[b, t, e], count[b, e] = choices of e / (T * per_token /
  //   experts) else:         c * sum_e mean_bt p[b, t, e] * experts * share of all choices that fell on e
  double aux_coefficient = 0.01;  // 0: none
  bool per_sequence = true;
};

struct DecoderConfig {
  std::string family = "llama";  // model_type: "llama", "qwen2", "qwen3", "minimind"
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  double rms_norm_eps = 1e-6;
  int64_t max_positions = 2048;
  RopeConfig rope;
  bool tie_embeddings = false;  // lm_head.weight is model.embed_tokens.weight
  bool qkv_bias = false;        // Qwen2; Llama with attention_bias
  bool o_bias = false;          // Llama with attention_bias
  bool mlp_bias = false;
  bool qk_norm = false;    // Qwen3: RMSNorm over head_dim on queries and keys, before RoPE
  MoeConfig moe;           // MiniMind; experts 0: every layer's feed-forward is dense
  int64_t bos_token = -1;  // -1: none
  int64_t pad_token = -1;
  std::vector<int64_t> eos_tokens;  // any of them ends an answer (generation_config.json wins over config.json)
};

}  // namespace troupe
