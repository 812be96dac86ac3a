// A decoder's weights as the kernels read them: panels of 32 output columns, the projections of one input fused
// (queries, keys, values; gates and ups interleaved by 16), in one block of memory.
//
// A panel of [n, k] is [k / step][32][step] elements, step 2 for bfloat16 (pairs, as vdpbf16ps and the AMX tiles take
// them) and 1 for float32.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/generate/decoder_sizes.hpp"
#include "core/generate/memory_block.hpp"
#include "core/models/config.hpp"
#include "core/models/state_dict.hpp"

namespace troupe {

struct NamedWeights;

struct PackedLinear {
  size_t offset = 0;  // of the panels in the block, bytes
  int64_t k = 0, num_panels = 0;
  std::vector<float> bias;  // [32 * num_panels], or empty
  bool operator==(const PackedLinear&) const = default;
};

struct PackedFeedForward {
  PackedLinear gate_up, down;
  bool operator==(const PackedFeedForward&) const = default;
};

struct PackedLayer {
  std::vector<float> attention_norm, mlp_norm;  // [hidden_padded]
  std::vector<float> q_norm, k_norm;            // [head_dim_padded], or empty
  PackedLinear qkv, o;
  PackedLinear router;                           // with experts; columns past their number are zero
  std::vector<PackedFeedForward> feed_forwards;  // one, or the experts and behind them the shared ones
  bool operator==(const PackedLayer&) const = default;
};

// All but the panels.
struct PackedLayers {
  std::vector<PackedLayer> layers;
  std::vector<float> final_norm;
  PackedLinear head;
  bool operator==(const PackedLayers&) const = default;
};

class PackedWeights {
 public:
  PackedWeights(const DecoderConfig& config, bool bf16);

  // Packs, with `threads` threads of its own. May be called again: the memory is used again. Weights may be float32 or
  // bfloat16, whatever this packs to, and are read where they lie. Throws std::invalid_argument naming a tensor that is
  // missing or of another shape, before anything changes.
  void pack(const StateDict& weights, int threads);
  // Whether what is packed here is, bit for bit, what packing `weights` gives. As fast as packing; needs no second
  // block.
  bool holds(const StateDict& weights, int threads) const;

  const std::vector<PackedLayer>& layers() const { return packed_.layers; }
  const std::vector<float>& final_norm() const { return packed_.final_norm; }
  const PackedLinear& head() const { return packed_.head; }
  const void* data(const PackedLinear& linear) const { return block_.data() + linear.offset; }
  // Own embedding rows, elements [vocab][hidden_padded]; nullptr when the head's weights are the embeddings.
  const void* embeddings() const { return config_.tie_embeddings ? nullptr : block_.data() + embeddings_offset_; }
  size_t bytes() const { return used_bytes_; }
  size_t active_bytes() const { return used_bytes_ - idle_bytes_; }  // read in one pass of one token

 private:
  PackedLinear place(int64_t n, int64_t k);
  class Collector;
  Collector collect(const NamedWeights& from, PackedLayers& to) const;

  const DecoderConfig config_;
  const DecoderSizes sizes_;
  const bool bf16_;
  PackedLayers packed_;
  size_t embeddings_offset_ = 0;
  size_t used_bytes_ = 0;
  size_t idle_bytes_ = 0;  // of the experts that a token does not go to
  MemoryBlock block_;
};

}  // namespace troupe
