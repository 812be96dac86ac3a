// The weights of a Decoder, laid out for computation, and one pass over them. Internal to core/models.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "core/models/attention.hpp"
#include "core/models/decoder.hpp"
#include "core/models/moe.hpp"
#include "core/models/workspace.hpp"

namespace troupe::trunk {

struct Layer {
  ParameterView attention_norm, feed_forward_norm;  // [D]
  HeadNorms head_norms;
  Linear qkv;         // [(H + 2 KV) * head_dim, D]: queries, keys, values
  Linear o;           // [D, H * head_dim]
  FeedForward dense;  // or
  Experts experts;
};

// What the backward pass of a layer needs; T is the compute dtype.
struct LayerActivations {
  at::Tensor normalised_attention, rms_attention;        // T [S, D], float32 [S]: see layer_ops.hpp
  at::Tensor qkv, attention, log_sum;                    // T [S, (H + 2 KV) d], T [S, H d], float32 [H, S]
  at::Tensor normalised_feed_forward, rms_feed_forward;  // T [S, D], float32 [S]
  at::Tensor gate_up;                                    // T [S, 2 I]; with experts [R, 2 I]
  ExpertActivations experts;
};

// Memory that every layer writes anew, in the forward pass and again in the backward pass.
struct Temporaries {
  at::Tensor y;               // T [S, D]: a norm's output, or its gradient
  at::Tensor delta;           // T [S, D]: what a block adds to the residual, or a norm's output in the backward pass
  at::Tensor act;             // T [S, I]: silu(gate) * up, or its gradient; dense
  ExpertTemporaries experts;  // or
  at::Tensor heads;           // T [S, H d]: gradient of the attention's output; backward
  at::Tensor dqkv;            // T [S, (H + 2 KV) d]; backward
};

// One forward pass, and what is kept of it.
struct Pass {
  PackedTokens packed;
  at::Tensor rows;  // int64 [R] or undefined: all
  bool adapted = true;
  bool keep = false;
  bool balance = false;      // the experts' auxiliary loss is wanted
  at::Tensor aux;            // it: float32 [], the sum over the layers
  float aux_gradient = 0.0;  // d loss / d aux, in the backward pass
  RopeTable rope;
  std::shared_ptr<Workspace> memory;
  Temporaries temporaries;
  at::Tensor residual;                   // float32 [S, D]
  LayerActivations shared;               // of one layer at a time: without gradient, or checkpointing
  std::vector<LayerActivations> layers;  // kept, not checkpointing
  std::vector<at::Tensor> layer_inputs;  // checkpointing: float32 [S, D] each
  at::Tensor normalised, rms;            // of the final norm: T [R, D], float32 [R]
  bool consumed = false;                 // its backward pass has overwritten it
};

// Name of a LoRA adapter's matrix, as PEFT writes it: module "self_attn.q_proj", which 'A' or 'B'.
std::string adapter_name(int64_t layer, const std::string& module, char which);

}  // namespace troupe::trunk

namespace troupe {

struct Decoder::Network {
  DecoderConfig config;
  DecoderOptions options;
  std::optional<ParameterArena> weights;   // the model; trainable with kFull
  std::optional<ParameterArena> adapters;  // kLora: trainable
  ParameterView embedding, final_norm, head, score;
  std::vector<trunk::Layer> layers;
  WorkspacePool workspaces;

  Network(const DecoderConfig& config, const StateDict& state, const DecoderOptions& options);

  at::Tensor forward(trunk::Pass& pass);  // hidden states [R, D]
  // Adds to the gradients; daux float32 [] or undefined.
  void backward(trunk::Pass& pass, const at::Tensor& dhidden, const at::Tensor& daux);

 private:
  void build_layers();
  void add_adapters(const StateDict& state);
  void forward_layer(const trunk::Layer& layer, const trunk::Pass& pass, const AttentionInput& input,
                     at::Tensor& residual, at::Tensor delta, trunk::LayerActivations& kept, trunk::Temporaries& t);
  void feed_forward(const trunk::Layer& layer, const trunk::Pass& pass, trunk::LayerActivations& kept,
                    trunk::Temporaries& t);
  void backward_layer(const trunk::Layer& layer, const trunk::Pass& pass, const AttentionInput& input,
                      trunk::LayerActivations& kept, at::Tensor& dresidual, at::Tensor& dy, trunk::Temporaries& t);
  void backward_feed_forward(const trunk::Layer& layer, const trunk::Pass& pass, trunk::LayerActivations& kept,
                             const at::Tensor& dy, trunk::Temporaries& t);
  trunk::Temporaries take_temporaries(Workspace& memory, int64_t tokens) const;
  trunk::LayerActivations take_activations(Workspace& memory, int64_t tokens) const;
  AttentionShape attention_shape() const {
    return {config.num_heads, config.num_kv_heads, config.head_dim, config.rms_norm_eps};
  }
};

}  // namespace troupe
