// A decoder's parameters by what they are, taken from a StateDict by their Hugging Face names and checked.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "core/models/config.hpp"
#include "core/models/state_dict.hpp"

namespace troupe {

struct LayerWeights {                   // shapes as transformers stores them: [out, in]
  at::Tensor attention_norm, mlp_norm;  // [hidden]
  at::Tensor q, k, v, o, gate, up, down;
  at::Tensor q_bias, k_bias, v_bias, o_bias, gate_bias, up_bias, down_bias;  // undefined where there is none
  at::Tensor q_norm, k_norm;                                                 // [head_dim], undefined without qk_norm
};

// All contiguous and on the CPU, float32 or bfloat16; shares memory with `weights` where they are already.
// Throws std::invalid_argument naming a parameter that is missing, of another shape, or of another dtype.
struct NamedWeights {
  NamedWeights(const DecoderConfig& config, const StateDict& weights);

  at::Tensor embeddings;  // [vocab, hidden]
  at::Tensor final_norm;  // [hidden]
  at::Tensor head;        // [vocab, hidden]; the embeddings when tied
  std::vector<LayerWeights> layers;
};

}  // namespace troupe
