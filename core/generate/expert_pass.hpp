// The feed-forward of experts in one pass of the packed decoder: rows are grouped by expert, so an expert is a product
// over consecutive rows. A row's numbers are computed and added up in an order that depends on the row alone, so they
// are the same bits in any company.
//
// The steps are called in their order, each after the one before is done by all threads: route (one thread), gather,
// gate_up, down, combine (ranges of rows or of panels, by any threads).
#pragma once

#include <vector>

#include "core/generate/activation_rows.hpp"
#include "core/generate/packed_weights.hpp"
#include "core/models/expert_groups.hpp"

namespace troupe {

class ExpertPass {
 public:
  ExpertPass(const DecoderConfig& config, const kernels::KernelTable& kernels, int64_t max_rows);

  // Of the first `rows` rows of x: the router's scores, each row's experts, the groups.
  void route(const PackedWeights& weights, const PackedLayer& layer, const Rows& x, int64_t rows);
  // Rows [first, last) of x to their experts.
  void gather(const Rows& x, int64_t first, int64_t last);
  // Panels [first, last), counted through all blocks of rows: num_panels is one block's.
  void gate_up(const PackedWeights& weights, const PackedLayer& layer, int64_t first, int64_t last);
  void down(const PackedWeights& weights, const PackedLayer& layer, int64_t first, int64_t last);
  // Rows [first, last) of `sum` (floats) += the experts' results by their weights, then the shared ones'.
  void combine(const Rows& sum, int64_t first, int64_t last) const;

  int64_t num_blocks() const { return config_.experts + config_.shared_experts; }

 private:
  void multiply(const PackedWeights& weights, const PackedLayer& layer, PackedLinear PackedFeedForward::*linear,
                const Rows& x, kernels::Epilogue epilogue, const Rows& out, int64_t first, int64_t last) const;

  const MoeConfig config_;
  const int64_t hidden_, slots_;  // slots: rows of one token
  const kernels::KernelTable& k_;
  Rows scores_;                     // floats [rows, experts rounded up to 32]
  Rows x_, act_;                    // elements, by expert: [rows * slots, hidden], [rows * slots, intermediate]
  Rows y_;                          // floats [rows * slots, hidden]
  std::vector<int32_t> chosen_;     // [rows * per_token]
  std::vector<float> weights_;      // [rows * per_token]
  std::vector<float> probability_;  // [experts]
  ExpertGroups groups_;
};

}  // namespace troupe
