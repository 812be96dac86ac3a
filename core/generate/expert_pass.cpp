#include "core/generate/expert_pass.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace troupe {

using kernels::kPanelCols;

ExpertPass::ExpertPass(const DecoderConfig& config, const kernels::KernelTable& kernels, int64_t max_rows)
    : config_(config.moe),
      hidden_(round_up(config.hidden_size, 32)),
      slots_(config_.per_token + config_.shared_experts),
      k_(kernels),
      scores_(max_rows, round_up(config_.experts, kPanelCols), 4),
      x_(max_rows * slots_, hidden_, kernels.bf16 ? 2 : 4),
      act_(max_rows * slots_, round_up(config.intermediate_size, 32), kernels.bf16 ? 2 : 4),
      y_(max_rows * slots_, hidden_, 4),
      chosen_(static_cast<size_t>(max_rows * config_.per_token)),
      weights_(chosen_.size()),
      probability_(static_cast<size_t>(config_.experts)) {}

void ExpertPass::route(const PackedWeights& weights, const PackedLayer& layer, const Rows& x, int64_t rows) {
  k_.gemm({.x = x.at(0),
           .x_stride = x.cols,
           .rows = rows,
           .w = weights.data(layer.router),
           .k = layer.router.k,
           .out = scores_.at(0),
           .out_stride = scores_.cols},
          0, layer.router.num_panels);
  for (int64_t row = 0; row < rows; ++row) {
    const float* scores = scores_.floats(row);
    const float top = *std::max_element(scores, scores + config_.experts);
    float sum = 0;
    for (size_t e = 0; e < probability_.size(); ++e) sum += probability_[e] = std::exp(scores[e] - top);
    for (float& p : probability_) p /= sum;
    const int64_t first = row * config_.per_token;
    choose_experts(config_, probability_.data(), chosen_.data() + first, weights_.data() + first);
  }
  groups_.assign(config_, std::span(chosen_).first(static_cast<size_t>(rows * config_.per_token)));
}

void ExpertPass::gather(const Rows& x, int64_t first, int64_t last) {
  for (int64_t i = first * slots_; i < last * slots_; ++i)
    std::memcpy(x_.at(groups_.rows[static_cast<size_t>(i)]), x.at(i / slots_), static_cast<size_t>(x.row_bytes));
}

void ExpertPass::multiply(const PackedWeights& weights, const PackedLayer& layer,
                          PackedLinear PackedFeedForward::*linear, const Rows& x, kernels::Epilogue epilogue,
                          const Rows& out, int64_t first, int64_t last) const {
  while (first < last) {
    const int64_t panels = (layer.feed_forwards[0].*linear).num_panels, block = first / panels;
    const PackedLinear& w = layer.feed_forwards[static_cast<size_t>(block)].*linear;
    const int64_t row = groups_.bounds[static_cast<size_t>(block)],
                  rows = groups_.bounds[static_cast<size_t>(block) + 1] - row,
                  end = std::min(last, (block + 1) * panels);
    if (rows > 0) {
      k_.gemm({.x = x.at(row),
               .x_stride = x.cols,
               .rows = rows,
               .w = weights.data(w),
               .k = w.k,
               .epilogue = epilogue,
               .out = out.at(row),
               .out_stride = out.cols},
              first - block * panels, end - block * panels);
    }
    first = end;
  }
}

void ExpertPass::gate_up(const PackedWeights& weights, const PackedLayer& layer, int64_t first, int64_t last) {
  multiply(weights, layer, &PackedFeedForward::gate_up, x_, kernels::Epilogue::kSwiGlu, act_, first, last);
}

void ExpertPass::down(const PackedWeights& weights, const PackedLayer& layer, int64_t first, int64_t last) {
  multiply(weights, layer, &PackedFeedForward::down, act_, kernels::Epilogue::kStore, y_, first, last);
}

void ExpertPass::combine(const Rows& sum, int64_t first, int64_t last) const {
  for (int64_t row = first; row < last; ++row) {
    float* to = sum.floats(row);
    for (int64_t k = 0; k < slots_; ++k) {
      const float* y = y_.floats(groups_.rows[static_cast<size_t>(row * slots_ + k)]);
      const float w = k < config_.per_token ? weights_[static_cast<size_t>(row * config_.per_token + k)] : 1.0f;
      for (int64_t i = 0; i < hidden_; ++i) to[i] += w * y[i];
    }
  }
}

}  // namespace troupe
