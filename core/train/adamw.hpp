// AdamW with decoupled weight decay (Loshchilov & Hutter 2019), torch.optim.AdamW's arithmetic, in one pass over a
// ParameterArena: reads gradients, moves moments and float32 masters, writes the bfloat16 copy.
//   m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;
//   w = w (1 - lr wd) - lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps)
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "core/models/parameter_arena.hpp"

namespace troupe {

struct AdamWConfig {
  double learning_rate = 1e-6;
  double beta1 = 0.9, beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.0;
  bool decay_norms_and_biases = false;
};

class AdamW {
 public:
  // The arena must outlive the optimizer and be trainable. Moments take memory with the first step.
  AdamW(ParameterArena& arena, const AdamWConfig& config);

  // One update with gradients g * gradient_scale (clipping folded in) and rate learning_rate * rate_factor; leaves the
  // gradients zero.
  void step(double rate_factor, double gradient_scale);

  // sqrt(sum g^2), float64 accumulation in a fixed order.
  double gradient_norm() const;

  int64_t steps() const { return steps_; }
  // Moments as stored, float32 [P] in the arena's layout; undefined before the first step.
  const at::Tensor& first_moment() const { return m_; }
  const at::Tensor& second_moment() const { return v_; }
  // Throws std::invalid_argument when a moment has another size than the arena.
  void load(const at::Tensor& m, const at::Tensor& v, int64_t steps);

 private:
  ParameterArena& arena_;
  AdamWConfig config_;
  int64_t steps_ = 0;
  at::Tensor m_, v_;
};

}  // namespace troupe
