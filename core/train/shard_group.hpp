// The optimizer state of a data-parallel group, cut among its ranks: stage 1 of ZeRO (Rajbhandari et al. 2020, "ZeRO:
// Memory Optimizations Toward Training Trillion Parameter Models", section 5). Rank r keeps the moments of elements
// [bounds[r], bounds[r + 1]) of a ParameterArena, steps these alone and receives the other ranks' masters. Gradients
// are summed whole, so every rank knows their norm, and a step gives the bits that it gives to one optimizer with all
// of it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

namespace troupe {

// The ranks, as the optimizer knows them; whoever owns the connections implements it. One thread at a time.
class ShardGroup {
 public:
  virtual ~ShardGroup() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Collective: every rank calls it. `whole` (dense, one dimension, of one length and dtype on every rank): rank r
  // brings elements [bounds[r], bounds[r + 1]) and receives the others', in place. Throws std::runtime_error, with
  // `whole` in part overwritten, when a rank does not take part.
  virtual void gather(at::Tensor& whole, std::span<const int64_t> bounds) = 0;
};

// size + 1 bounds of nearly equal shards, at multiples of 64 elements.
std::vector<int64_t> shard_bounds(int64_t elements, int size);

// Collective. The tensor of which `own` is this rank's shard: on rank 0, undefined on the others, which need a few MB
// for a moment.
at::Tensor gather_at_first(ShardGroup& group, const at::Tensor& own, std::span<const int64_t> bounds);

}  // namespace troupe
