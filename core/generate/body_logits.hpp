// What the sampler needs of a block of logits.
#pragma once

#include "core/generate/body_elements.hpp"

namespace troupe::kernels {
namespace {

template <class S>
BlockStats logit_stats(const float* logits, int64_t n, float inverse_temperature) {
  auto top = S::load(logits);
  for (int64_t i = 16; i < n; i += 16) top = S::max(top, S::load(logits + i));
  const float max = S::reduce_max(top);
  const auto scale = S::set1(inverse_temperature), shift = S::set1(max);
  auto sum = S::zero();
  for (int64_t i = 0; i < n; i += 16) {
    sum = S::add(sum, exponential<S>(S::mul(S::sub(S::load(logits + i), shift), scale)));
  }
  return {max, S::reduce_add(sum)};
}

template <class S>
void exponentials(const float* logits, int64_t n, float max, float inverse_temperature, float* out) {
  const auto scale = S::set1(inverse_temperature), shift = S::set1(max);
  for (int64_t i = 0; i < n; i += 16) {
    S::store(out + i, exponential<S>(S::mul(S::sub(S::load(logits + i), shift), scale)));
  }
}

}  // namespace
}  // namespace troupe::kernels
