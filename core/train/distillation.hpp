// White-box distillation: cross-entropy with the labels and divergence from a teacher's whole distribution, in chunks
// of rows, so that no more than a chunk of float32 logits of either model exists at a time.
//   loss = a CE + (1 - a) T^2 KL,  CE = -log softmax(z)[target],
//   KL = sum_v p_t(v) (log p_t(v) - log p_s(v)),  p = softmax(z / T)         (Hinton, Vinyals, Dean 2015)
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "core/models/parameter_arena.hpp"

namespace troupe {

struct DistillationOptions {
  double alpha = 0.5;                       // a: weight of the cross-entropy, 0 to 1
  double temperature = 1.5;                 // T > 0
  int64_t chunk_bytes = int64_t{64} << 20;  // of float32 logits of each model computed at once
};

// Per token, float32 [N].
struct DistillationTerms {
  at::Tensor loss;           // differentiable with respect to the student's hidden states
  at::Tensor cross_entropy;  // detached
  at::Tensor divergence;     // detached: T^2 KL, in nats
};

// student [N, D], student_head.value [V, D], targets int64 [N] in [0, V); teacher [N, D'], teacher_head [V', D'] with
// V' >= V, of which the first V rows count. The backward pass adds the student head's gradient into student_head.grad
// (when defined); for it [N, V] in the compute dtype is kept: choose micro-batches accordingly.
// Throws std::invalid_argument on a wrong shape or setting.
DistillationTerms distillation_terms(const at::Tensor& student, const ParameterView& student_head,
                                     const at::Tensor& teacher, const at::Tensor& teacher_head,
                                     const at::Tensor& targets, const DistillationOptions& options);

}  // namespace troupe
