// From the rewards of groups of answers to one advantage per answer. Pure functions over plain numbers, computed in
// double, no tensors: the conductor calls them. Thread-safe.
//
// Sources: (A) GRPO, arXiv 2402.03300 section 4.1.2, as TRL 1.16 GRPOTrainer computes it; (B) RLOO, arXiv 2402.14740,
// TRL RLOOTrainer; (C) GDPO, arXiv 2601.05242, TRL's `normalize_then_sum`; (D) OpenRLHF 0.11.2, reward shaping.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "protocol/fields.hpp"

namespace troupe {

template <class E>
struct EnumNames;  // core/config.hpp
class JsonPath;

// What is subtracted from a reward.
enum class Baseline {
  kGroupMean,    // (A) the mean of the group
  kLeaveOneOut,  // (B) the mean of the group's other answers
  kBatchMean,    // (D) "flash_reinforce": the mean of all answers
  kNone,
};

// Which standard deviation of rewards the difference is divided by.
enum class AdvantageScale { kGroup, kBatch, kNone };

// The variance's divisor: n - 1 (TRL, OpenRLHF, verl) or n (TRL's asynchronous trainer).
enum class StdDivisor { kBessel, kPopulation };

// Several rewards per answer: summed, then normalised (A); or each normalised in its group, then summed (C).
enum class RewardCombination { kSumThenNormalize, kNormalizeThenSum };

// Groups whose answers all got the same reward teach nothing: kept with advantage 0, or dropped (DAPO, 2503.14476).
enum class ZeroVarianceGroups { kKeep, kDrop };

template <>
struct EnumNames<Baseline> {
  static constexpr std::array kNames{std::pair<std::string_view, Baseline>{"group_mean", Baseline::kGroupMean},
                                     std::pair<std::string_view, Baseline>{"leave_one_out", Baseline::kLeaveOneOut},
                                     std::pair<std::string_view, Baseline>{"batch_mean", Baseline::kBatchMean},
                                     std::pair<std::string_view, Baseline>{"none", Baseline::kNone}};
};
template <>
struct EnumNames<AdvantageScale> {
  static constexpr std::array kNames{std::pair<std::string_view, AdvantageScale>{"group", AdvantageScale::kGroup},
                                     std::pair<std::string_view, AdvantageScale>{"batch", AdvantageScale::kBatch},
                                     std::pair<std::string_view, AdvantageScale>{"none", AdvantageScale::kNone}};
};
template <>
struct EnumNames<StdDivisor> {
  static constexpr std::array kNames{std::pair<std::string_view, StdDivisor>{"bessel", StdDivisor::kBessel},
                                     std::pair<std::string_view, StdDivisor>{"population", StdDivisor::kPopulation}};
};
template <>
struct EnumNames<RewardCombination> {
  static constexpr std::array kNames{
      std::pair<std::string_view, RewardCombination>{"sum_then_normalize", RewardCombination::kSumThenNormalize},
      std::pair<std::string_view, RewardCombination>{"normalize_then_sum", RewardCombination::kNormalizeThenSum}};
};
template <>
struct EnumNames<ZeroVarianceGroups> {
  static constexpr std::array kNames{
      std::pair<std::string_view, ZeroVarianceGroups>{"keep", ZeroVarianceGroups::kKeep},
      std::pair<std::string_view, ZeroVarianceGroups>{"drop", ZeroVarianceGroups::kDrop}};
};

struct AdvantageConfig {
  Baseline baseline = Baseline::kGroupMean;
  AdvantageScale scale = AdvantageScale::kGroup;  // TRL's default; "none" is Dr. GRPO's
  StdDivisor std_divisor = StdDivisor::kBessel;   // TRL GRPO, OpenRLHF, verl
  double std_epsilon = 1e-4;                      // TRL GRPO; verl 1e-6, OpenRLHF 1e-9, TRL asynchronous 1e-8
  bool whiten = false;                            // then (a - mean) / (std + std_epsilon) over the batch; RLOO's option
  double clip = 0;                                // then into [-clip, clip]; 0: off; OpenRLHF's default is 10
  RewardCombination combination = RewardCombination::kSumThenNormalize;
  std::map<std::string, double> part_weights;  // kNormalizeThenSum: which parts of the score, and their weights
  ZeroVarianceGroups zero_variance_groups = ZeroVarianceGroups::kKeep;  // TRL keeps; DAPO, OpenRLHF's filter drop
  bool mask_truncated = false;         // answers cut off by the length limit count no token (TRL's option, off there)
  int64_t overlong_max_tokens = 0;     // Lmax of DAPO eq. 13; 0: no penalty
  int64_t overlong_buffer_tokens = 0;  // Lc of DAPO eq. 13
  double overlong_penalty = 1;         // its factor
  static constexpr std::tuple kFields{Field{"baseline", &AdvantageConfig::baseline},
                                      Field{"scale", &AdvantageConfig::scale},
                                      Field{"std_divisor", &AdvantageConfig::std_divisor},
                                      Field{"std_epsilon", &AdvantageConfig::std_epsilon},
                                      Field{"whiten", &AdvantageConfig::whiten},
                                      Field{"clip", &AdvantageConfig::clip},
                                      Field{"combination", &AdvantageConfig::combination},
                                      Field{"part_weights", &AdvantageConfig::part_weights},
                                      Field{"zero_variance_groups", &AdvantageConfig::zero_variance_groups},
                                      Field{"mask_truncated", &AdvantageConfig::mask_truncated},
                                      Field{"overlong_max_tokens", &AdvantageConfig::overlong_max_tokens},
                                      Field{"overlong_buffer_tokens", &AdvantageConfig::overlong_buffer_tokens},
                                      Field{"overlong_penalty", &AdvantageConfig::overlong_penalty}};
};
TROUPE_FIELDS_COMPLETE(AdvantageConfig);

// B answers; answers with the same group id belong together, in any order.
struct GroupRewards {
  std::vector<double> rewards;      // [B]; NaN: could not be scored, left out of every statistic, advantage 0
  std::vector<uint64_t> groups;     // [B], Experience::draws
  std::vector<int64_t> num_tokens;  // [B], or empty when no overlong penalty is asked for
  std::vector<uint8_t> truncated;   // [B] 1: ran into the length limit; or empty without mask_truncated
  std::map<std::string, std::vector<double>> parts;  // Scores::parts, [B] each; used by kNormalizeThenSum only
};

struct GroupAdvantages {
  std::vector<float> advantages;      // [B], always finite
  std::vector<uint8_t> keep;          // [B] 0: the answer leaves the batch (zero-variance group)
  std::vector<uint8_t> count_tokens;  // [B] 0: its tokens get loss mask 0, before any token is counted (truncated)
  double reward_mean = 0;             // over scored answers, after the overlong penalty
  double reward_std = 0;              // over scored answers, n - 1
  double zero_variance_fraction = 0;  // of groups
  int64_t num_unscored = 0;           // NaN rewards
};

// A group with fewer than two scored answers is no error: its advantages are 0 under a group baseline.
// Throws std::invalid_argument for lists of unequal length, infinite rewards, or a part that the scores lack.
GroupAdvantages group_advantages(const AdvantageConfig& config, const GroupRewards& answers);

// Throws std::invalid_argument naming the key under `where` ("algorithm.advantage") when values make no sense.
void check(const AdvantageConfig& config, const JsonPath& where);

}  // namespace troupe
