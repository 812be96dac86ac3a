// A decoder's parameters by what they are, taken from a StateDict by their Hugging Face names and checked.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "core/models/config.hpp"
#include "core/models/state_dict.hpp"

namespace troupe {

// Shapes as transformers stores them, [out, in]; biases are undefined where there are none.
struct FeedForwardWeights {
  at::Tensor gate, up, down;
  at::Tensor gate_bias, up_bias, down_bias;
};

struct LayerWeights {
  at::Tensor attention_norm, mlp_norm;  // [hidden]
  at::Tensor q, k, v, o;
  at::Tensor q_bias, k_bias, v_bias, o_bias;
  at::Tensor q_norm, k_norm;                      // [head_dim], undefined without qk_norm
  at::Tensor router;                              // [experts, hidden], undefined without experts
  std::vector<FeedForwardWeights> feed_forwards;  // one, or the experts and behind them the shared ones
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
