// Estimators of KL(policy || reference) from the log-probabilities of sampled tokens.
// Source: J. Schulman, "Approximating KL divergence" (2020); clamps as OpenRLHF 0.11.2 `compute_approx_kl`.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <string_view>
#include <utility>

namespace troupe {

template <class E>
struct EnumNames;  // core/config.hpp

// With x = L - L_ref:  k1 = x,  k2 = x^2 / 2,  k3 = exp(-x) - 1 + x.
enum class KlEstimator { kK1, kK2, kK3 };

template <>
struct EnumNames<KlEstimator> {
  static constexpr std::array kNames{std::pair<std::string_view, KlEstimator>{"k1", KlEstimator::kK1},
                                     std::pair<std::string_view, KlEstimator>{"k2", KlEstimator::kK2},
                                     std::pair<std::string_view, KlEstimator>{"k3", KlEstimator::kK3}};
};

// Per token, same shape and dtype as `logprobs`; differentiable. clamp c > 0: x is raised to at least -c inside k3 and
// the result is limited to [-c, c] (OpenRLHF: 10); 0: neither (TRL).
at::Tensor kl_estimate(KlEstimator estimator, const at::Tensor& logprobs, const at::Tensor& reference_logprobs,
                       double clamp = 0);

// The value of `kl`, the gradient of w x^2 / 2 with w = sg(min(exp(log_ratio), 10)): an unbiased gradient whatever the
// estimator (OpenRLHF `kl.unbiased_gradient`; verl's "k3+" is w = 1).
at::Tensor with_unbiased_kl_gradient(const at::Tensor& kl, const at::Tensor& logprobs,
                                     const at::Tensor& reference_logprobs, const at::Tensor& log_ratio);

}  // namespace troupe
