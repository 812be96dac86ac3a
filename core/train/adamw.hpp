// AdamW with decoupled weight decay (Loshchilov & Hutter 2019), torch.optim.AdamW's arithmetic, in one pass over a
// ParameterArena: reads gradients, moves moments and float32 masters, writes the bfloat16 copy.
//   m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;
//   w = w (1 - lr wd) - lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps)
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "core/models/parameter_arena.hpp"
#include "core/train/shard_group.hpp"

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
  // The arena must outlive the optimizer and be trainable. Moments take memory with the first step. With `shards`,
  // which must outlive it too, those of this rank's shard alone; all ranks then make the same calls.
  AdamW(ParameterArena& arena, const AdamWConfig& config, ShardGroup* shards = nullptr);

  // One update with gradients g * gradient_scale (clipping folded in) and rate learning_rate * rate_factor; leaves the
  // gradients zero. When a rank of the shards fails it throws std::runtime_error, and the state must be loaded anew.
  void step(double rate_factor, double gradient_scale);

  // sqrt(sum g^2), float64 accumulation in a fixed order.
  double gradient_norm() const;

  int64_t steps() const { return steps_; }
  // float32 [P] in the arena's layout; undefined before the first step. With shards gathered, on rank 0 alone:
  // undefined on the others.
  at::Tensor first_moment() const { return whole(m_); }
  at::Tensor second_moment() const { return whole(v_); }
  int64_t moment_bytes() const { return 2 * (end_ - begin_) * static_cast<int64_t>(sizeof(float)); }  // kept here
  // Whole moments, of which a rank keeps its shard. Throws std::invalid_argument when one has another size than the
  // arena.
  void load(const at::Tensor& m, const at::Tensor& v, int64_t steps);

 private:
  at::Tensor whole(const at::Tensor& own) const;
  void receive_others();

  ParameterArena& arena_;
  AdamWConfig config_;
  ShardGroup* shards_;           // null: all of the arena is stepped here
  std::vector<int64_t> bounds_;  // of all ranks' shards
  int64_t begin_, end_;          // of the own one
  int64_t steps_ = 0;
  at::Tensor m_, v_;  // [end_ - begin_]
};

}  // namespace troupe
