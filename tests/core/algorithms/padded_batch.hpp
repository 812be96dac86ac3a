// Loss batches for tests: written padded ([B, T], right), as the oracles are, and packed for the loss.
#pragma once

#include <ATen/ATen.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/algorithms/loss_batch.hpp"

namespace troupe {

struct PaddedBatch {
  using Rows = std::vector<std::vector<double>>;
  Rows logprobs, old, behaviour, reference, entropy, mask;
  std::vector<int64_t> lengths;
  std::vector<double> advantages;
};

// The two sequences with plain numbers that the oracle scripts call "small".
inline PaddedBatch small_batch() {
  return {.logprobs = {{-1, -.5, -2, -.1}, {-.7, -1.2, -.3, 0}},
          .old = {{-1.2, -.6, -1.5, -.1}, {-2, -.8, -.5, 0}},
          .behaviour = {{-1.3, -.5, -1, -.2}, {-.9, -1.9, -.4, 0}},
          .reference = {{-1.1, -.9, -1.8, -.3}, {-.6, -1, -.4, 0}},
          .entropy = {{1, .5, 2, .1}, {.7, 1.2, .3, 0}},
          .mask = {{1, 1, 1, 1}, {1, 1, 1, 0}},
          .lengths = {4, 3},
          .advantages = {1, -1}};
}

inline PaddedBatch batch_of(const nlohmann::json& j) {
  return {j.at("logprobs"), j.at("old"),  j.at("behaviour"), j.at("reference"),
          j.at("entropy"),  j.at("mask"), j.at("lengths"),   j.at("advantages")};
}

// Rows cut to their lengths, one after another.
inline at::Tensor packed(const PaddedBatch::Rows& rows, const std::vector<int64_t>& lengths,
                         at::ScalarType type = at::kDouble) {
  std::vector<double> flat;
  for (std::size_t i = 0; i < rows.size(); ++i) flat.insert(flat.end(), rows[i].begin(), rows[i].begin() + lengths[i]);
  return at::tensor(flat, at::kDouble).to(type);
}

// logprobs and entropy require a gradient.
inline LossBatch packed(const PaddedBatch& b, at::ScalarType type = at::kDouble) {
  LossBatch out;
  out.logprobs = packed(b.logprobs, b.lengths, type).requires_grad_();
  out.old_logprobs = packed(b.old, b.lengths, type);
  out.behaviour_logprobs = packed(b.behaviour, b.lengths, type);
  out.reference_logprobs = packed(b.reference, b.lengths, type);
  out.entropy = packed(b.entropy, b.lengths, type).requires_grad_();
  out.mask = packed(b.mask, b.lengths, at::kByte);
  out.lengths = at::tensor(b.lengths, at::kLong);
  out.advantages = at::tensor(b.advantages, at::kDouble).to(type);
  return out;
}

inline at::Tensor gradient_of(const at::Tensor& leaf) {
  return leaf.grad().defined() ? leaf.grad() : at::zeros_like(leaf);
}

inline double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

}  // namespace troupe
