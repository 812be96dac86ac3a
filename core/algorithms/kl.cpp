#include "core/algorithms/kl.hpp"

#include <ATen/ATen.h>

namespace troupe {

at::Tensor kl_estimate(KlEstimator estimator, const at::Tensor& logprobs, const at::Tensor& reference_logprobs,
                       double clamp) {
  const at::Tensor x = logprobs - reference_logprobs;
  at::Tensor k;
  switch (estimator) {
    case KlEstimator::kK1:
      k = x;
      break;
    case KlEstimator::kK2:
      k = 0.5 * x.square();
      break;
    case KlEstimator::kK3: {
      const at::Tensor bounded = clamp > 0 ? x.clamp_min(-clamp) : x;
      k = at::expm1(-bounded) + bounded;
      break;
    }
  }
  return clamp > 0 ? k.clamp(-clamp, clamp) : k;
}

at::Tensor with_unbiased_kl_gradient(const at::Tensor& kl, const at::Tensor& logprobs,
                                     const at::Tensor& reference_logprobs, const at::Tensor& log_ratio) {
  const at::Tensor w = log_ratio.detach().exp().clamp_max(10.0);
  const at::Tensor carrier = w * 0.5 * (logprobs - reference_logprobs).square();
  return kl.detach() + carrier - carrier.detach();
}

}  // namespace troupe
