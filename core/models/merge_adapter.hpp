// Low-rank adapters added into the weights they adapt: W <- W + scale * B A, computed in float32.
#pragma once

#include <string>

#include "core/models/state_dict.hpp"

namespace troupe {

// Adapts `model` in place; every tensor keeps its dtype. The names tell which form the adapter has:
//   PATH.lora.A.weight [r, in], PATH.lora.B.weight [out, r]                         MiniMind
//   PATH.lora_A [in, r], PATH.lora_B [r, out]                                       MiniMind's fork: (B A)^T
//   base_model.model.PATH.lora_A.weight [r, in], ...lora_B.weight [out, r]          PEFT
// with PATH such as "model.layers.0.self_attn.q_proj" ("module." before it is passed over).
// `scale`: 1 for MiniMind's, alpha / r for the others. Throws std::runtime_error naming `origin` and the tensor that
// has no place in the model, no partner, or a shape that does not fit.
void merge_adapter(StateDict& model, const StateDict& adapter, double scale, const std::string& origin);

}  // namespace troupe
