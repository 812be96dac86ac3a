// Weights that correct for tokens having been sampled by another policy (mu, the generator's arithmetic or an older
// version) than the one whose log-probabilities the learner recomputed (pi_old). Pure, no gradient flows through them.
//
//   r_t = exp(L_old,t - L_mu,t), masked tokens and unknown (NaN) L_mu give 1
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "core/algorithms/loss_batch.hpp"
#include "protocol/fields.hpp"

namespace troupe {

template <class E>
struct EnumNames;  // core/config.hpp
class JsonPath;

enum class CorrectionMode {
  kOff,
  kTruncate,  // w = min(max(u, low), high)
  kMask,      // w = 0 where the statistic lies outside [low, high]
};

// Over what the statistic is taken, and what u is:
//   token      u = r_t                  truncate: TIS (verl, slime, OpenRLHF); mask: IcePop (u survives unclamped)
//   sequence   u = prod_t r_t           truncate, mask: TRL `sequence_truncate`, `sequence_mask`
//   geometric  g = (prod_t r_t)^(1/|o|) truncate: u = g; mask: on g, survivors keep their r_t (OpenRLHF, NeMo)
enum class CorrectionLevel { kToken, kSequence, kGeometric };

// What kMask compares with [low, high]. The divergences are those of the two-outcome distributions {sampled token,
// anything else}, p = exp(L_mu), q = exp(L_old), in [1e-6, 1 - 1e-6] (OpenRLHF 0.11.2); level token: each token's own;
// level geometric: the sequence's mean. Survivors keep their r_t.
enum class CorrectionStatistic { kRatio, kBinaryKl, kTotalVariation };

template <>
struct EnumNames<CorrectionMode> {
  static constexpr std::array kNames{std::pair<std::string_view, CorrectionMode>{"off", CorrectionMode::kOff},
                                     std::pair<std::string_view, CorrectionMode>{"truncate", CorrectionMode::kTruncate},
                                     std::pair<std::string_view, CorrectionMode>{"mask", CorrectionMode::kMask}};
};
template <>
struct EnumNames<CorrectionLevel> {
  static constexpr std::array kNames{
      std::pair<std::string_view, CorrectionLevel>{"token", CorrectionLevel::kToken},
      std::pair<std::string_view, CorrectionLevel>{"sequence", CorrectionLevel::kSequence},
      std::pair<std::string_view, CorrectionLevel>{"geometric", CorrectionLevel::kGeometric}};
};
template <>
struct EnumNames<CorrectionStatistic> {
  static constexpr std::array kNames{
      std::pair<std::string_view, CorrectionStatistic>{"ratio", CorrectionStatistic::kRatio},
      std::pair<std::string_view, CorrectionStatistic>{"binary_kl", CorrectionStatistic::kBinaryKl},
      std::pair<std::string_view, CorrectionStatistic>{"total_variation", CorrectionStatistic::kTotalVariation}};
};

struct CorrectionConfig {
  CorrectionMode mode = CorrectionMode::kTruncate;
  CorrectionLevel level = CorrectionLevel::kToken;
  CorrectionStatistic statistic = CorrectionStatistic::kRatio;
  double low = 0;
  double high = 2;  // truncate at token level with 2: verl, slime, SkyRL; TRL: mask at sequence level with 3
  static constexpr std::tuple kFields{Field{"mode", &CorrectionConfig::mode}, Field{"level", &CorrectionConfig::level},
                                      Field{"statistic", &CorrectionConfig::statistic},
                                      Field{"low", &CorrectionConfig::low}, Field{"high", &CorrectionConfig::high}};
};
TROUPE_FIELDS_COMPLETE(CorrectionConfig);

struct ImportanceWeights {
  at::Tensor weight;               // [N], undefined when the mode is off
  at::Tensor sequence_log_weight;  // [B] the log of the sequence's weight, each factor in [1e-8, e^20] (VESPO)
};

// mask is float [N] of zeros and ones; old and behaviour are [N] without gradient.
ImportanceWeights importance_weights(const CorrectionConfig& config, const Sequences& sequences,
                                     const at::Tensor& old_logprobs, const at::Tensor& behaviour_logprobs,
                                     const at::Tensor& mask);

// Throws std::invalid_argument naming the key under `where` when values make no sense.
void check(const CorrectionConfig& config, const JsonPath& where);

}  // namespace troupe
