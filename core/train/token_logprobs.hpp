// Log-probability of given tokens and entropy of the distributions they came from, without ever holding the logits of a
// whole batch: rows go through the output projection in chunks, and what the backward pass needs is kept only as far as
// `keep_bytes` reaches, computed again beyond it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "core/models/parameter_arena.hpp"
#include "core/models/workspace.hpp"

namespace troupe {

struct TokenLogProbs {
  at::Tensor logprobs;  // float32 [N]: log softmax(h W^T / temperature)[target]
  at::Tensor entropy;   // float32 [N]: of softmax(h W^T / temperature), in nats
};

struct TokenLogProbOptions {
  double temperature = 1.0;                  // > 0
  int64_t chunk_bytes = int64_t{128} << 20;  // of float32 logits computed at once
  int64_t keep_bytes = int64_t{128} << 20;   // of float32 logits kept for the backward pass
  WorkspacePool* memory = nullptr;           // where they lie; none: allocated anew
};

// hidden [N, D] compute dtype, head.value [V, D] same dtype, targets int64 [N]. Both results are differentiable with
// respect to hidden; the head's gradient is added into head.grad (when defined) by the backward pass:
//   d logprob_i / d logits_i = (onehot(t_i) - p_i) / temperature,  d entropy_i / d logits_i = -p_i (log p_i + H_i) /
//   temperature.
// Throws std::invalid_argument on a wrong shape or dtype, a target outside [0, V) or temperature <= 0.
TokenLogProbs token_logprobs(const at::Tensor& hidden, const ParameterView& head, const at::Tensor& targets,
                             const TokenLogProbOptions& options = {});

}  // namespace troupe
