// A decoder of the Llama family (Llama, SmolLM2, Qwen2, Qwen3, MiniMind with and without experts) that can be trained:
// x += o_proj(attention(rope(qkv_proj(norm(x))))); x += feed_forward(norm(x)); a final norm; a head.
//
// Numbers: matrix products in the compute dtype (float32 or bfloat16, float32 accumulation); the residual stream, norm
// statistics, softmax, rotary angles and all gradients of parameters in float32.
// Backward passes add into the arena's float32 gradients themselves; no weight is an autograd leaf.
// One thread at a time; the same inputs with the same thread count give the same bits.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>

#include "core/models/config.hpp"
#include "core/models/lora_config.hpp"
#include "core/models/packed_tokens.hpp"
#include "core/models/parameter_arena.hpp"
#include "core/models/state_dict.hpp"

namespace troupe {

// Hidden states and the experts' auxiliary loss of the same pass, float32 []: the sum over the layers, the coefficient
// included, see MoeConfig. A sequence that continues another counts as one of its own with its own tokens.
struct HiddenStates {
  at::Tensor hidden;
  at::Tensor aux;  // undefined when the model is dense, its coefficient is 0, or nothing is differentiable
};

enum class Training { kFrozen, kFull, kLora };

struct DecoderOptions {
  at::ScalarType compute = at::kFloat;  // at::kFloat or at::kBFloat16
  Training training = Training::kFrozen;
  LoraConfig lora;                      // read when training is kLora
  bool gradient_checkpointing = false;  // keep only each layer's input, compute the layer again in the backward pass
  bool score_head = false;              // have "score.weight" [1, D] even when the state has none (it starts at zero)
  at::Device device = at::kCPU;
};

class Decoder {
 public:
  // Copies the weights. Throws std::invalid_argument naming the parameter that is missing, unknown or of another
  // shape, or the setting that is out of range. With kLora, `state` may hold adapter weights under PEFT's names; they
  // start as PEFT starts them where it holds none.
  Decoder(const DecoderConfig& config, const StateDict& state, const DecoderOptions& options);
  ~Decoder();
  Decoder(Decoder&&) noexcept;

  // Hidden states after the final norm, compute dtype, of all S tokens [S, D] or of the rows given (int64 [R],
  // distinct) [R, D]. Differentiable when grad mode is on and something is trainable. `adapter` false: the base alone.
  at::Tensor hidden(const PackedTokens& packed, const at::Tensor& rows = {}, bool adapter = true) const;
  // The same with the auxiliary loss: differentiable through both (the auxiliary loss through the router's
  // probabilities alone).
  HiddenStates hidden_and_aux(const PackedTokens& packed, const at::Tensor& rows = {}, bool adapter = true) const;

  // float32 [R, V]; holds all of it, so for tests and small inputs. Not differentiable.
  at::Tensor logits(const at::Tensor& hidden) const;
  // Scalar of each hidden state, float32 [R]: hidden . score. Differentiable. Throws without a score head.
  at::Tensor scalars(const at::Tensor& hidden) const;

  // The output projection [V, D]; the embedding itself when tied.
  const ParameterView& head() const;
  bool has_score() const;

  // Gives the memory of past passes back to the system until the next one.
  void discard_activations();

  // What an optimizer steps: the whole model, the adapters, or (frozen) nothing: nullptr.
  ParameterArena* trainable();
  const ParameterArena* trainable() const;

  // float32 views (frozen: compute dtype) of what training changes: the model by Hugging Face names, or the adapters by
  // PEFT's ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight").
  StateDict state() const;
  // Whole model with adapters merged in, compute dtype; copies only what an adapter changes.
  StateDict merged() const;

  const DecoderConfig& config() const;
  const DecoderOptions& options() const;

 private:
  struct Network;
  HiddenStates pass_through(const PackedTokens& packed, const at::Tensor& rows, bool adapter, bool aux) const;

  std::unique_ptr<Network> network_;
};

}  // namespace troupe
