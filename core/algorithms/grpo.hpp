// GRPO and its family: one loss function whose settings select the published variants.
// Papers: GRPO 2402.03300, Dr. GRPO 2503.20783, DAPO 2503.14476, GSPO 2507.18071, CISPO 2506.13585, SAPO 2511.20347,
// VESPO 2602.10693, LUSPO 2602.05261. Checked against TRL 1.16 and OpenRLHF 0.11.2; docs/algorithms.md has every
// formula, its source and its setting.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "core/algorithms/advantages.hpp"
#include "core/algorithms/importance.hpp"
#include "core/algorithms/kl.hpp"
#include "core/algorithms/loss_batch.hpp"
#include "protocol/fields.hpp"

namespace troupe {

// The token's term and how terms are averaged; see docs/algorithms.md.
enum class LossType { kGrpo, kBnpo, kDrGrpo, kDapo, kCispo, kSapo, kVespo, kLuspo };

// The ratio's level: each token's own, or the sequence's geometric mean (GSPO).
enum class ImportanceLevel { kToken, kSequence };

// What the ratio's denominator is: L_old recomputed by the learner, or L_mu as generated ("bypass": TRL AsyncGRPO,
// verl's fully asynchronous default); the latter needs no importance correction.
enum class OldPolicy { kRecomputed, kBehaviour };

template <>
struct EnumNames<LossType> {
  static constexpr std::array kNames{std::pair<std::string_view, LossType>{"grpo", LossType::kGrpo},
                                     std::pair<std::string_view, LossType>{"bnpo", LossType::kBnpo},
                                     std::pair<std::string_view, LossType>{"dr_grpo", LossType::kDrGrpo},
                                     std::pair<std::string_view, LossType>{"dapo", LossType::kDapo},
                                     std::pair<std::string_view, LossType>{"cispo", LossType::kCispo},
                                     std::pair<std::string_view, LossType>{"sapo", LossType::kSapo},
                                     std::pair<std::string_view, LossType>{"vespo", LossType::kVespo},
                                     std::pair<std::string_view, LossType>{"luspo", LossType::kLuspo}};
};
template <>
struct EnumNames<ImportanceLevel> {
  static constexpr std::array kNames{
      std::pair<std::string_view, ImportanceLevel>{"token", ImportanceLevel::kToken},
      std::pair<std::string_view, ImportanceLevel>{"sequence", ImportanceLevel::kSequence}};
};
template <>
struct EnumNames<OldPolicy> {
  static constexpr std::array kNames{std::pair<std::string_view, OldPolicy>{"recomputed", OldPolicy::kRecomputed},
                                     std::pair<std::string_view, OldPolicy>{"behaviour", OldPolicy::kBehaviour}};
};

// Defaults are TRL 1.16's GRPOConfig unless a comment says otherwise.
struct GrpoConfig {
  LossType loss_type = LossType::kDapo;
  ImportanceLevel importance_level = ImportanceLevel::kToken;
  OldPolicy old_policy = OldPolicy::kRecomputed;
  double clip_low = 0.2;
  double clip_high = 0.2;       // DAPO's clip-higher: 0.28
  double delta = 0;             // upper bound of the ratio for both signs of A (INTELLECT-2); 0: off
  double dual_clip = 0;         // c: for A < 0 the loss is at most c |A|; 0: off (OpenRLHF); verl: 3
  double log_ratio_clamp = 20;  // |log ratio| limit; 0: off (TRL); OpenRLHF, verl: 20
  double kl_beta = 0;
  KlEstimator kl_estimator = KlEstimator::kK3;
  bool kl_times_ratio = true;         // TRL's use_bias_correction_kl, true since 1.16
  bool kl_unbiased_gradient = false;  // OpenRLHF's kl.unbiased_gradient; excludes kl_times_ratio
  double kl_clamp = 0;                // OpenRLHF: 10
  int64_t max_completion_length = 0;  // dr_grpo's constant length; must be given there
  double cispo_max_ratio = 5;         // TRL recommends 5 (its epsilon_high is the cap itself)
  double sapo_temperature_pos = 1.0;
  double sapo_temperature_neg = 1.05;
  double vespo_k_pos = 2;
  double vespo_lambda_pos = 3;
  double vespo_k_neg = 3;
  double vespo_lambda_neg = 2;
  double off_policy_threshold = -1;  // OPSM's delta; negative: off; DeepSeek-V3.2 as slime sets it: 1e-4
  double top_entropy_quantile = 1;   // share of tokens of highest entropy trained on; 1: all
  double entropy_coef = 0;
  CorrectionConfig correction;
  AdvantageConfig advantage;
  static constexpr std::tuple kFields{Field{"loss_type", &GrpoConfig::loss_type},
                                      Field{"importance_level", &GrpoConfig::importance_level},
                                      Field{"old_policy", &GrpoConfig::old_policy},
                                      Field{"clip_low", &GrpoConfig::clip_low},
                                      Field{"clip_high", &GrpoConfig::clip_high},
                                      Field{"delta", &GrpoConfig::delta},
                                      Field{"dual_clip", &GrpoConfig::dual_clip},
                                      Field{"log_ratio_clamp", &GrpoConfig::log_ratio_clamp},
                                      Field{"kl_beta", &GrpoConfig::kl_beta},
                                      Field{"kl_estimator", &GrpoConfig::kl_estimator},
                                      Field{"kl_times_ratio", &GrpoConfig::kl_times_ratio},
                                      Field{"kl_unbiased_gradient", &GrpoConfig::kl_unbiased_gradient},
                                      Field{"kl_clamp", &GrpoConfig::kl_clamp},
                                      Field{"max_completion_length", &GrpoConfig::max_completion_length},
                                      Field{"cispo_max_ratio", &GrpoConfig::cispo_max_ratio},
                                      Field{"sapo_temperature_pos", &GrpoConfig::sapo_temperature_pos},
                                      Field{"sapo_temperature_neg", &GrpoConfig::sapo_temperature_neg},
                                      Field{"vespo_k_pos", &GrpoConfig::vespo_k_pos},
                                      Field{"vespo_lambda_pos", &GrpoConfig::vespo_lambda_pos},
                                      Field{"vespo_k_neg", &GrpoConfig::vespo_k_neg},
                                      Field{"vespo_lambda_neg", &GrpoConfig::vespo_lambda_neg},
                                      Field{"off_policy_threshold", &GrpoConfig::off_policy_threshold},
                                      Field{"top_entropy_quantile", &GrpoConfig::top_entropy_quantile},
                                      Field{"entropy_coef", &GrpoConfig::entropy_coef},
                                      Field{"correction", &GrpoConfig::correction},
                                      Field{"advantage", &GrpoConfig::advantage}};
};
TROUPE_FIELDS_COMPLETE(GrpoConfig);

// Counts the denominators of a whole update. Needs mask and lengths, and entropy when top_entropy_quantile < 1 (taken
// in a pass before the update: the quantile is over all its tokens).
LossScale grpo_scale(const GrpoConfig& config, const LossBatch& whole_update);

// The loss of one micro-batch of whole sequences. Throws std::invalid_argument for shapes that do not fit, or a tensor
// that the settings need and the batch lacks.
LossResult grpo_loss(const GrpoConfig& config, const LossBatch& batch, const LossScale& scale);

// Throws std::invalid_argument naming the key under `where` ("algorithm") when values make no sense or contradict.
void check(const GrpoConfig& config, const JsonPath& where);

}  // namespace troupe
