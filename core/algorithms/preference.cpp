#include "core/algorithms/preference.hpp"

#include <ATen/ATen.h>

#include <numeric>
#include <stdexcept>
#include <string>

namespace troupe {
namespace {

void check_pairs(const at::Tensor& x, const char* what) {
  if (x.dim() != 2 || x.size(1) != 2)
    throw std::invalid_argument(std::string(what) + " must be [P, 2]: chosen, rejected");
}

at::Tensor difference(const at::Tensor& pairs) {
  return pairs.select(1, 0) - pairs.select(1, 1);
}

// -log sigmoid(x), without overflow.
at::Tensor surprise(const at::Tensor& x) {
  return at::softplus(-x);
}

}  // namespace

at::Tensor sequence_sums(const at::Tensor& x, const std::vector<int64_t>& counts, bool mean) {
  const int64_t total = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  if (x.dim() != 1 || x.size(0) != total)
    throw std::invalid_argument("sequences of " + std::to_string(total) + " values in all, given " +
                                std::to_string(x.numel()));
  const auto number = static_cast<int64_t>(counts.size());
  const at::Tensor sizes = at::tensor(counts, at::kLong).to(x.device());
  const at::Tensor owner = at::repeat_interleave(at::arange(number, sizes.options()), sizes);
  const at::Tensor sums = at::zeros({number}, x.options().requires_grad(false)).index_add(0, owner, x);
  return mean ? sums / sizes.to(x.scalar_type()).clamp_min(1e-8) : sums;
}

PairLosses dpo_loss(const at::Tensor& policy, const at::Tensor& reference, double beta, double label_smoothing) {
  check_pairs(policy, "policy");
  check_pairs(reference, "reference");
  const at::Tensor margin = beta * (difference(policy) - difference(reference));
  at::Tensor loss = surprise(margin);
  if (label_smoothing != 0) loss = (1 - label_smoothing) * loss + label_smoothing * surprise(-margin);
  return {loss, margin.detach()};
}

PairLosses reward_pair_loss(const at::Tensor& scores, double least_margin) {
  check_pairs(scores, "scores");
  const at::Tensor margin = difference(scores);
  return {surprise(margin - least_margin), margin.detach()};
}

}  // namespace troupe
