#include "core/algorithms/grpo.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <stdexcept>

#include "core/config.hpp"

namespace troupe {
namespace {

// A micro-batch in the papers' symbols: [N] unless the name ends in _B. Masked tokens hold 0 throughout.
struct Symbols {
  at::Tensor m;         // 1 where the token counts
  at::Tensor length_B;  // |o_i|, at least 1
  at::Tensor A, A_B;
  at::Tensor L, L_old;
  at::Tensor d;      // L - L_old
  at::Tensor rho_B;  // the sequence's ratio, when the level is the sequence
  at::Tensor rho;    // the ratio, spread to tokens
};

Symbols symbols(const GrpoConfig& c, const LossBatch& b, const Sequences& seq) {
  Symbols s;
  const at::Tensor masked_out = b.mask == 0;
  s.m = masked_out.logical_not().to(b.logprobs.scalar_type());
  s.length_B = seq.sum(s.m).clamp_min(1.0);
  s.A_B = b.advantages;
  s.A = seq.spread(s.A_B);
  s.L = b.logprobs.masked_fill(masked_out, 0.0);
  const at::Tensor& old = c.old_policy == OldPolicy::kBehaviour ? b.behaviour_logprobs : b.old_logprobs;
  s.L_old = old.defined() ? old.detach().masked_fill(masked_out, 0.0) : s.L.detach();
  s.d = s.L - s.L_old;
  const auto ratio = [&](const at::Tensor& log_ratio) {
    const double limit = c.log_ratio_clamp;
    return (limit > 0 ? log_ratio.clamp(-limit, limit) : log_ratio).exp();
  };
  if (c.importance_level == ImportanceLevel::kSequence) {
    s.rho_B = ratio(seq.sum(s.d) / s.length_B);  // GSPO eq. 7
    s.rho = seq.spread(s.rho_B);
  } else {
    s.rho = ratio(s.d);
  }
  return s;
}

// PPO's clipped term, with the upper bounds delta (both signs of A) and c (A < 0).
at::Tensor clipped_term(const GrpoConfig& c, const Symbols& s) {
  const at::Tensor bounded = c.delta > 0 ? s.rho.clamp_max(c.delta) : s.rho;
  const at::Tensor clipped = s.rho.clamp(1 - c.clip_low, 1 + c.clip_high);
  const at::Tensor gain = at::minimum(bounded * s.A, clipped * s.A);
  if (c.dual_clip <= 0) return -gain;
  return -at::where(s.A < 0, at::maximum(gain, c.dual_clip * s.A), gain);
}

// VESPO: phi(w) = e^lambda w^k e^(-lambda w), w the sequence's ratio (its product over tokens), [B] without gradient.
at::Tensor vespo_weight(const GrpoConfig& c, const Symbols& s, const Sequences& seq, const at::Tensor& log_is_B) {
  const at::NoGradGuard no_grad;
  at::Tensor log_w = seq.sum(s.d.clamp(-20.0, 20.0));
  if (log_is_B.defined()) log_w = log_w + log_is_B;
  log_w = log_w.clamp(std::log(1e-8), 20.0);
  const at::Tensor good = s.A_B >= 0;
  const auto by_sign = [&](double pos, double neg) {
    return at::where(good, at::full_like(s.A_B, pos), at::full_like(s.A_B, neg));
  };
  const at::Tensor k = by_sign(c.vespo_k_pos, c.vespo_k_neg);
  const at::Tensor lambda = by_sign(c.vespo_lambda_pos, c.vespo_lambda_neg);
  return (lambda + k * log_w - lambda * log_w.exp()).exp();
}

// The loss of each token before weights and KL.
at::Tensor policy_term(const GrpoConfig& c, const Symbols& s, const Sequences& seq, const at::Tensor& log_is_B) {
  switch (c.loss_type) {
    case LossType::kCispo:
      return -s.rho.detach().clamp_max(c.cispo_max_ratio) * s.A * s.L;
    case LossType::kSapo: {
      const at::Tensor tau =
          at::where(s.A > 0, at::full_like(s.A, c.sapo_temperature_pos), at::full_like(s.A, c.sapo_temperature_neg));
      return -(4.0 / tau) * at::sigmoid(tau * (s.rho - 1.0)) * s.A;
    }
    case LossType::kVespo:
      return -seq.spread(vespo_weight(c, s, seq, log_is_B)) * s.A * s.L;
    default:
      return clipped_term(c, s);
  }
}

// DeepSeek-V3.2's off-policy sequence mask: drops bad answers that the policy has moved away from. [B] of 0 and 1.
at::Tensor off_policy_keep(const GrpoConfig& c, const Symbols& s, const Sequences& seq, const at::Tensor& L_mu) {
  const at::NoGradGuard no_grad;
  const at::Tensor drift = at::nan_to_num((L_mu.defined() ? L_mu : s.L_old) - s.L, 0.0) * s.m;
  return at::logical_or(s.A_B >= 0, seq.sum(drift) / s.length_B <= c.off_policy_threshold).to(s.m.scalar_type());
}

at::Tensor kl_term(const GrpoConfig& c, const Symbols& s, const at::Tensor& L_ref) {
  at::Tensor kl = kl_estimate(c.kl_estimator, s.L, L_ref, c.kl_clamp);
  if (c.kl_unbiased_gradient) return with_unbiased_kl_gradient(kl, s.L, L_ref, s.d);
  return c.kl_times_ratio ? kl * s.rho : kl;
}

// One number for the micro-batch; the denominators are the whole update's.
at::Tensor aggregate(const GrpoConfig& c, const at::Tensor& term, const Symbols& s, const Sequences& seq,
                     const LossScale& scale) {
  const at::Tensor counted = term * s.m;
  const double sequences = std::max(scale.num_sequences, 1.0);
  switch (c.loss_type) {
    case LossType::kGrpo:
    case LossType::kSapo:
      return (seq.sum(counted) / s.length_B).sum() / sequences;
    case LossType::kLuspo:
      return counted.sum() / sequences;
    case LossType::kDrGrpo:
      return counted.sum() / (sequences * scale.max_completion_length);
    default:
      return counted.sum() / std::max(scale.num_tokens, 1.0);
  }
}

double sum_of(const at::Tensor& t) {
  return t.sum(at::kDouble).item<double>();
}
double max_of(const at::Tensor& t) {
  return t.numel() ? t.max().item<double>() : 0.0;
}

// Ratios and clipping. At sequence level a sequence counts once, as in TRL.
void ratio_metrics(const GrpoConfig& c, const Symbols& s, double num_tokens, LossMetrics& out) {
  const bool per_sequence = s.rho_B.defined();
  const at::Tensor& rho = per_sequence ? s.rho_B : s.rho;
  const at::Tensor& A = per_sequence ? s.A_B : s.A;
  const at::Tensor weight = per_sequence ? at::ones_like(s.A_B) : s.m;
  const double count = per_sequence ? static_cast<double>(s.A_B.numel()) : num_tokens;
  const auto mean = [&](const char* name, const at::Tensor& value) {
    out.add_mean(name, sum_of(value * weight), count);
  };
  mean("ratio_mean", rho);
  out.add_max("ratio_max", max_of(rho * weight));
  const bool cispo = c.loss_type == LossType::kCispo;
  if (c.loss_type == LossType::kSapo || c.loss_type == LossType::kVespo) return;
  const at::Tensor high = at::logical_and(rho > (cispo ? c.cispo_max_ratio : 1 + c.clip_high), A > 0);
  mean("clip_fraction_high", high);
  if (cispo) return;
  const at::Tensor low = at::logical_and(rho < 1 - c.clip_low, A < 0);
  mean("clip_fraction_low", low);
  mean("clip_fraction", at::logical_or(low, high));
}

// How far the generator's probabilities are from the learner's (`L_learner`, before the update), and what the
// correction made of it.
void behaviour_metrics(const Symbols& s, const at::Tensor& L_learner, const at::Tensor& L_mu,
                       const ImportanceWeights& importance, double num_tokens, LossMetrics& out) {
  const at::Tensor log_r = at::nan_to_num(L_learner - L_mu, 0.0) * s.m;
  const at::Tensor r = log_r.clamp(-20.0, 20.0).exp() * s.m;
  out.add_mean("behaviour_ratio_mean", sum_of(r), num_tokens);
  out.add_deviation("behaviour_ratio_std", sum_of(r), sum_of(r * r), num_tokens);
  out.add_max("behaviour_ratio_max", max_of(r));
  out.add_mean("behaviour_kl", sum_of((at::expm1(log_r) - log_r) * s.m), num_tokens);
  out.add_mean("behaviour_kl_k1", -sum_of(log_r), num_tokens);
  out.add_mean("behaviour_logprob_difference", sum_of(log_r.abs()), num_tokens);
  out.add_max("behaviour_logprob_difference_max", max_of(log_r.abs()));
  if (!importance.weight.defined()) return;
  out.add_mean("importance_weight_mean", sum_of(importance.weight * s.m), num_tokens);
  out.add_mean("importance_rejected_fraction", sum_of((importance.weight == 0) * s.m), num_tokens);
}

void require(bool present, const char* tensor, const char* setting) {
  if (!present) throw std::invalid_argument(std::string("the batch lacks ") + tensor + ", which " + setting + " needs");
}

void require_inputs(const GrpoConfig& c, const LossBatch& b, const LossScale& scale) {
  check(b);
  require(c.kl_beta == 0 || b.reference_logprobs.defined(), "reference_logprobs", "kl_beta");
  require(c.old_policy == OldPolicy::kRecomputed || b.behaviour_logprobs.defined(), "behaviour_logprobs",
          "old_policy \"behaviour\"");
  require(c.entropy_coef == 0 || b.entropy.defined(), "entropy", "entropy_coef");
  require(c.top_entropy_quantile >= 1 || b.entropy.defined(), "entropy", "top_entropy_quantile");
  if (c.loss_type == LossType::kDrGrpo && scale.max_completion_length <= 0)
    throw std::invalid_argument("the loss scale lacks max_completion_length, which loss_type \"dr_grpo\" needs");
}

at::Tensor masked(const at::Tensor& values, const at::Tensor& mask) {
  return values.defined() ? values.masked_fill(mask == 0, 0.0) : values;
}

// What is reported beside the loss.
void add_metrics(const GrpoConfig& c, const Symbols& s, const Sequences& seq, const at::Tensor& L_learner,
                 const at::Tensor& L_mu, const at::Tensor& H, const ImportanceWeights& importance, double num_tokens,
                 LossMetrics& out) {
  out.add_total("num_tokens", num_tokens);
  out.add_total("num_sequences", static_cast<double>(seq.count()));
  out.add_mean("policy_kl", sum_of(at::expm1(s.d) - s.d), num_tokens);
  if (H.defined()) out.add_mean("entropy", sum_of(H), num_tokens);
  ratio_metrics(c, s, num_tokens, out);
  if (L_mu.defined()) behaviour_metrics(s, L_learner, L_mu, importance, num_tokens, out);
}

// The policy's part: terms, the three masks and weights in TRL's order, averaged. `trained` tells which tokens the
// entropy quantile leaves.
at::Tensor policy_loss(const GrpoConfig& c, const Symbols& s, const Sequences& seq, const at::Tensor& L_mu,
                       const ImportanceWeights& importance, const at::Tensor& trained, const LossScale& scale,
                       LossMetrics& out) {
  at::Tensor term = policy_term(c, s, seq, importance.sequence_log_weight);
  if (c.off_policy_threshold >= 0) {
    const at::Tensor keep_B = off_policy_keep(c, s, seq, L_mu);
    term = term * seq.spread(keep_B);
    out.add_mean("off_policy_rejected_fraction", sum_of(1 - keep_B), static_cast<double>(seq.count()));
  }
  if (c.top_entropy_quantile < 1) term = term * trained;
  // VESPO has the correction inside its own weight.
  if (importance.weight.defined() && c.loss_type != LossType::kVespo) term = term * importance.weight;
  return aggregate(c, term, s, seq, scale);
}

// beta * KL to the reference, or undefined; without beta the KL is measured only.
at::Tensor kl_loss(const GrpoConfig& c, const Symbols& s, const Sequences& seq, const at::Tensor& L_ref,
                   const LossScale& scale, double num_tokens, LossMetrics& out) {
  if (!L_ref.defined()) return {};
  const at::AutoGradMode with_gradient(c.kl_beta != 0 && at::GradMode::is_enabled());
  const at::Tensor kl = kl_term(c, s, L_ref);
  out.add_mean("kl", sum_of(kl * s.m), num_tokens);
  return c.kl_beta != 0 ? c.kl_beta * aggregate(c, kl, s, seq, scale) : at::Tensor();
}

}  // namespace

LossScale grpo_scale(const GrpoConfig& c, const LossBatch& whole_update) {
  require(whole_update.mask.defined() && whole_update.lengths.defined(), "mask or lengths", "the loss scale");
  const at::NoGradGuard no_grad;
  const at::Tensor counted = whole_update.mask != 0;
  LossScale scale;
  scale.num_tokens = sum_of(counted);
  scale.num_sequences = static_cast<double>(whole_update.lengths.numel());
  scale.max_completion_length = static_cast<double>(c.max_completion_length);
  scale.num_entropy_tokens = scale.num_tokens;
  if (c.top_entropy_quantile >= 1) return scale;
  require(whole_update.entropy.defined(), "entropy", "top_entropy_quantile");
  const at::Tensor entropies = whole_update.entropy.masked_select(counted);
  if (entropies.numel() == 0) return scale;
  scale.entropy_threshold = at::quantile(entropies, 1 - c.top_entropy_quantile).item<double>();
  scale.num_entropy_tokens = sum_of(entropies >= scale.entropy_threshold);
  return scale;
}

LossResult grpo_loss(const GrpoConfig& c, const LossBatch& b, const LossScale& scale) {
  require_inputs(c, b, scale);
  const Sequences seq(b.lengths, b.logprobs.numel());
  const Symbols s = symbols(c, b, seq);
  const at::Tensor L_mu = masked(b.behaviour_logprobs, b.mask);
  const at::Tensor H = masked(b.entropy, b.mask);
  ImportanceWeights importance;
  if (L_mu.defined() && c.old_policy == OldPolicy::kRecomputed)
    importance = importance_weights(c.correction, seq, s.L_old, L_mu, s.m);
  const at::Tensor trained = c.top_entropy_quantile < 1 ? s.m * (H.detach() >= scale.entropy_threshold) : s.m;
  const double num_tokens = sum_of(s.m);

  LossResult result;
  LossMetrics& out = result.metrics;
  const auto add = [&](const char* name, const at::Tensor& part) {
    if (!part.defined()) return;
    result.loss = result.loss.defined() ? result.loss + part : part;
    out.add_total(name, part.item<double>());
  };
  add("policy_loss", policy_loss(c, s, seq, L_mu, importance, trained, scale, out));
  add("kl_loss", kl_loss(c, s, seq, masked(b.reference_logprobs, b.mask), scale, num_tokens, out));
  if (c.entropy_coef != 0)
    add("entropy_loss", -c.entropy_coef * (H * trained).sum() / std::max(scale.num_entropy_tokens, 1.0));

  const at::NoGradGuard no_grad;
  const at::Tensor L_learner = b.old_logprobs.defined() ? masked(b.old_logprobs, b.mask) : s.L;
  add_metrics(c, s, seq, L_learner, L_mu, H, importance, num_tokens, out);
  out.add_total("loss", result.loss.item<double>());
  return result;
}

void check(const GrpoConfig& c, const JsonPath& where) {
  const auto refuse = [&](const char* key, const char* why) {
    throw std::invalid_argument(where.key(key).prefix() + why);
  };
  if (!(c.clip_low >= 0 && c.clip_low < 1)) refuse("clip_low", "expected 0 to below 1");
  if (!(c.clip_high >= 0)) refuse("clip_high", "expected 0 or more");
  if (c.delta != 0 && !(c.delta > 1 + c.clip_high)) refuse("delta", "expected 0 (off) or more than 1 + clip_high");
  if (c.dual_clip != 0 && !(c.dual_clip > 1)) refuse("dual_clip", "expected 0 (off) or more than 1");
  if (!(c.log_ratio_clamp >= 0)) refuse("log_ratio_clamp", "expected 0 (off) or more");
  if (!(c.kl_beta >= 0)) refuse("kl_beta", "expected 0 or more");
  if (!(c.kl_clamp >= 0)) refuse("kl_clamp", "expected 0 (off) or more");
  if (c.kl_unbiased_gradient && c.kl_times_ratio)
    refuse("kl_unbiased_gradient", "excludes kl_times_ratio: set that to false");
  if (c.max_completion_length < 0) refuse("max_completion_length", "expected 0 (none) or more");
  if (c.loss_type == LossType::kDrGrpo && c.max_completion_length == 0)
    refuse("max_completion_length", "loss_type \"dr_grpo\" needs it: the constant length it divides by");
  if (!(c.cispo_max_ratio > 0)) refuse("cispo_max_ratio", "expected more than 0");
  if (!(c.sapo_temperature_pos > 0)) refuse("sapo_temperature_pos", "expected more than 0");
  if (!(c.sapo_temperature_neg > 0)) refuse("sapo_temperature_neg", "expected more than 0");
  if (!(c.vespo_lambda_pos > 0)) refuse("vespo_lambda_pos", "expected more than 0");
  if (!(c.vespo_lambda_neg > 0)) refuse("vespo_lambda_neg", "expected more than 0");
  if (!(c.top_entropy_quantile > 0 && c.top_entropy_quantile <= 1))
    refuse("top_entropy_quantile", "expected more than 0 up to 1 (all tokens)");
  if (!(c.entropy_coef >= 0)) refuse("entropy_coef", "expected 0 or more");
  if (c.loss_type == LossType::kVespo && c.importance_level != ImportanceLevel::kToken)
    refuse("importance_level", "loss_type \"vespo\" weighs sequences itself: expected \"token\"");
  if (c.loss_type == LossType::kLuspo && c.importance_level != ImportanceLevel::kSequence)
    refuse("importance_level", "loss_type \"luspo\" is defined for \"sequence\"");
  if (c.old_policy == OldPolicy::kBehaviour && c.correction.mode != CorrectionMode::kOff)
    refuse("old_policy", "\"behaviour\" leaves nothing to correct: set correction.mode to \"off\"");
  check(c.correction, where.key("correction"));
  check(c.advantage, where.key("advantage"));
}

}  // namespace troupe
