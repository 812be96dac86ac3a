#include "core/algorithms/importance.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <stdexcept>

#include "core/config.hpp"

namespace troupe {
namespace {

constexpr double kLogLimit = 20.0;  // |log r_t|: beyond it a float's product would be infinite
const double kLogTiny = std::log(1e-8);

// [N]: the divergence of {sampled token, anything else} under mu (p) and pi_old (q).
at::Tensor divergence(CorrectionStatistic statistic, const at::Tensor& old, const at::Tensor& behaviour) {
  const at::Tensor p = behaviour.exp().clamp(1e-6, 1 - 1e-6);
  const at::Tensor q = old.exp().clamp(1e-6, 1 - 1e-6);
  if (statistic == CorrectionStatistic::kTotalVariation) return (p - q).abs();
  return p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log();
}

at::Tensor inside(const CorrectionConfig& c, const at::Tensor& statistic) {
  return at::logical_and(statistic >= c.low, statistic <= c.high);
}

// Truncated or masked by its own value.
at::Tensor limited(const CorrectionConfig& c, const at::Tensor& u) {
  if (c.mode == CorrectionMode::kTruncate) return u.clamp(c.low, c.high);
  return u.masked_fill(inside(c, u).logical_not(), 0.0);
}

}  // namespace

ImportanceWeights importance_weights(const CorrectionConfig& c, const Sequences& sequences,
                                     const at::Tensor& old_logprobs, const at::Tensor& behaviour_logprobs,
                                     const at::Tensor& mask) {
  if (c.mode == CorrectionMode::kOff) return {};
  const at::NoGradGuard no_grad;
  const at::Tensor behaviour = at::where(behaviour_logprobs.isnan(), old_logprobs, behaviour_logprobs);
  const at::Tensor log_r = at::where(mask > 0, old_logprobs - behaviour, at::zeros_like(old_logprobs));
  const at::Tensor r = log_r.clamp(-kLogLimit, kLogLimit).exp();
  const at::Tensor length = sequences.sum(mask).clamp_min(1.0);

  if (c.level == CorrectionLevel::kSequence) {
    const at::Tensor w_B = limited(c, sequences.sum(log_r).exp());
    return {sequences.spread(w_B), w_B.log().clamp(kLogTiny, kLogLimit)};
  }
  at::Tensor w;
  if (c.level == CorrectionLevel::kGeometric && c.mode == CorrectionMode::kTruncate) {
    w = sequences.spread(limited(c, (sequences.sum(log_r) / length).exp()));
  } else if (c.level == CorrectionLevel::kToken && c.statistic == CorrectionStatistic::kRatio) {
    w = limited(c, r);
  } else {
    at::Tensor statistic;
    if (c.statistic == CorrectionStatistic::kRatio) {
      statistic = sequences.spread((sequences.sum(log_r) / length).exp());
    } else {
      statistic = divergence(c.statistic, old_logprobs, behaviour) * mask;
      if (c.level == CorrectionLevel::kGeometric) statistic = sequences.spread(sequences.sum(statistic) / length);
    }
    w = r.masked_fill(inside(c, statistic).logical_not(), 0.0);
  }
  return {w, sequences.sum(w.log().clamp(kLogTiny, kLogLimit) * mask)};
}

void check(const CorrectionConfig& c, const JsonPath& where) {
  const auto refuse = [&](const char* key, const std::string& why) {
    throw std::invalid_argument(where.key(key).prefix() + why);
  };
  if (c.mode == CorrectionMode::kOff) return;
  if (!(c.low >= 0)) refuse("low", "expected 0 or more");
  if (!(c.high > c.low)) refuse("high", "expected more than low");
  if (c.statistic == CorrectionStatistic::kRatio) return;
  if (c.mode != CorrectionMode::kMask) refuse("statistic", "a divergence works with mode \"mask\" only");
  if (c.level == CorrectionLevel::kSequence)
    refuse("level", "a divergence is taken per \"token\" or as the sequence's mean (\"geometric\")");
}

}  // namespace troupe
