#include "core/algorithms/advantages.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "core/config.hpp"
#include "core/rewards/overlong.hpp"

namespace troupe {
namespace {

constexpr double kSameReward = 1e-8;  // rewards of a group closer than this count as one (TRL's isclose)

struct Statistics {
  double count = 0;
  double mean = 0;
  double std = 0;
  double range = 0;
};

// Of the values that are no NaN. Sorted first, so that the result does not depend on the order of the answers.
Statistics statistics(std::vector<double> values, StdDivisor divisor) {
  std::erase_if(values, [](double v) { return std::isnan(v); });
  std::sort(values.begin(), values.end());
  Statistics s;
  s.count = static_cast<double>(values.size());
  if (values.empty()) return s;
  for (const double v : values) s.mean += v / s.count;
  const double degrees = divisor == StdDivisor::kBessel ? s.count - 1 : s.count;
  double squares = 0;
  for (const double v : values) squares += (v - s.mean) * (v - s.mean);
  s.std = degrees > 0 ? std::sqrt(squares / degrees) : 0;
  s.range = values.back() - values.front();
  return s;
}

using Members = std::vector<std::size_t>;

std::vector<Members> members_of_groups(const std::vector<uint64_t>& groups) {
  std::map<uint64_t, Members> by_id;
  for (std::size_t i = 0; i < groups.size(); ++i) by_id[groups[i]].push_back(i);
  std::vector<Members> out;
  for (auto& [id, members] : by_id) out.push_back(std::move(members));
  return out;
}

std::vector<double> select(const std::vector<double>& values, const Members& members) {
  std::vector<double> out;
  for (const std::size_t i : members) out.push_back(values[i]);
  return out;
}

// (value - baseline) / scale for every answer; NaN stays NaN.
std::vector<double> normalized(const AdvantageConfig& c, const std::vector<double>& values,
                               const std::vector<Members>& groups) {
  const Statistics batch = statistics(values, c.std_divisor);
  std::vector<double> out(values.size());
  for (const Members& members : groups) {
    const Statistics group = statistics(select(values, members), c.std_divisor);
    double divisor = 1;
    if (c.scale == AdvantageScale::kGroup) divisor = group.std + c.std_epsilon;
    if (c.scale == AdvantageScale::kBatch) divisor = batch.std + c.std_epsilon;
    for (const std::size_t i : members) {
      double baseline = 0;
      switch (c.baseline) {
        case Baseline::kGroupMean:
          baseline = group.mean;
          break;
        case Baseline::kLeaveOneOut:
          baseline = group.count > 1 ? (group.mean * group.count - values[i]) / (group.count - 1) : values[i];
          break;
        case Baseline::kBatchMean:
          baseline = batch.mean;
          break;
        case Baseline::kNone:
          break;
      }
      out[i] = (values[i] - baseline) / divisor;
    }
  }
  return out;
}

void whiten(const AdvantageConfig& c, std::vector<double>& values) {
  const Statistics batch = statistics(values, c.std_divisor);
  for (double& v : values) v = (v - batch.mean) / (batch.std + c.std_epsilon);
}

// GDPO: sum_k w_k z_k with z_k normalised in its group; NaN only where every part is.
std::vector<double> combined_parts(const AdvantageConfig& c, const GroupRewards& answers,
                                   const std::vector<Members>& groups) {
  std::vector<double> sums(answers.rewards.size(), std::numeric_limits<double>::quiet_NaN());
  for (const auto& [name, weight] : c.part_weights) {
    const std::vector<double> z = normalized(c, answers.parts.at(name), groups);
    for (std::size_t i = 0; i < z.size(); ++i)
      if (!std::isnan(z[i])) sums[i] = (std::isnan(sums[i]) ? 0 : sums[i]) + weight * z[i];
  }
  return sums;
}

// Whether nothing tells the group's answers apart.
bool zero_variance(const AdvantageConfig& c, const GroupRewards& answers, const std::vector<double>& rewards,
                   const Members& members) {
  const auto same = [&](const std::vector<double>& values) {
    return statistics(select(values, members), c.std_divisor).range <= kSameReward;
  };
  if (c.combination == RewardCombination::kSumThenNormalize) return same(rewards);
  return std::all_of(c.part_weights.begin(), c.part_weights.end(),
                     [&](const auto& part) { return same(answers.parts.at(part.first)); });
}

void check_answers(const AdvantageConfig& c, const GroupRewards& answers) {
  const std::size_t size = answers.rewards.size();
  const auto expect = [&](const std::string& list, std::size_t actual) {
    if (actual != size)
      throw std::invalid_argument(list + " of " + std::to_string(actual) + " answers, but rewards of " +
                                  std::to_string(size));
  };
  const auto finite_or_nan = [](const std::string& list, const std::vector<double>& values) {
    if (std::any_of(values.begin(), values.end(), [](double v) { return std::isinf(v); }))
      throw std::invalid_argument(list + ": an infinite value");
  };
  expect("groups", answers.groups.size());
  if (c.overlong_max_tokens > 0) expect("num_tokens", answers.num_tokens.size());
  if (c.mask_truncated) expect("truncated", answers.truncated.size());
  finite_or_nan("rewards", answers.rewards);
  if (c.combination == RewardCombination::kSumThenNormalize) return;
  for (const auto& [name, weight] : c.part_weights) {
    const auto part = answers.parts.find(name);
    if (part == answers.parts.end())
      throw std::invalid_argument("the scores have no part '" + name + "', which part_weights names");
    expect("part '" + name + "'", part->second.size());
    finite_or_nan("part '" + name + "'", part->second);
  }
}

}  // namespace

GroupAdvantages group_advantages(const AdvantageConfig& c, const GroupRewards& answers) {
  check_answers(c, answers);
  const std::size_t size = answers.rewards.size();
  std::vector<double> rewards = answers.rewards;
  if (c.overlong_max_tokens > 0)
    for (std::size_t i = 0; i < size; ++i)
      rewards[i] += c.overlong_penalty *
                    soft_overlong_punishment(answers.num_tokens[i], c.overlong_max_tokens, c.overlong_buffer_tokens);
  const std::vector<Members> groups = members_of_groups(answers.groups);
  const bool parts = c.combination == RewardCombination::kNormalizeThenSum;
  std::vector<double> advantages = parts ? combined_parts(c, answers, groups) : normalized(c, rewards, groups);
  if (parts || c.whiten) whiten(c, advantages);

  GroupAdvantages out;
  out.advantages.assign(size, 0.0f);
  out.keep.assign(size, 1);
  out.count_tokens.assign(size, 1);
  for (std::size_t i = 0; i < size; ++i) {
    if (c.mask_truncated && answers.truncated[i]) out.count_tokens[i] = 0;
    if (std::isnan(advantages[i])) continue;
    out.advantages[i] = static_cast<float>(c.clip > 0 ? std::clamp(advantages[i], -c.clip, c.clip) : advantages[i]);
  }
  double num_equal = 0;
  for (const Members& members : groups) {
    if (!zero_variance(c, answers, rewards, members)) continue;
    num_equal += 1;
    if (c.zero_variance_groups == ZeroVarianceGroups::kDrop)
      for (const std::size_t i : members) out.keep[i] = 0;
  }
  if (!groups.empty()) out.zero_variance_fraction = num_equal / static_cast<double>(groups.size());
  const Statistics all = statistics(rewards, StdDivisor::kBessel);
  out.reward_mean = all.mean;
  out.reward_std = all.std;
  out.num_unscored = static_cast<int64_t>(size) - static_cast<int64_t>(all.count);
  return out;
}

void check(const AdvantageConfig& c, const JsonPath& where) {
  const auto refuse = [&](const char* key, const std::string& why) {
    throw std::invalid_argument(where.key(key).prefix() + why);
  };
  if (!(c.std_epsilon > 0)) refuse("std_epsilon", "expected more than 0");
  if (!(c.clip >= 0)) refuse("clip", "expected 0 (off) or more");
  if (c.overlong_max_tokens < 0) refuse("overlong_max_tokens", "expected 0 (off) or more");
  if (c.overlong_max_tokens > 0 && (c.overlong_buffer_tokens < 1 || c.overlong_buffer_tokens > c.overlong_max_tokens))
    refuse("overlong_buffer_tokens", "expected 1 to overlong_max_tokens");
  if (!(c.overlong_penalty >= 0)) refuse("overlong_penalty", "expected 0 or more");
  if (c.combination == RewardCombination::kSumThenNormalize) {
    if (!c.part_weights.empty()) refuse("part_weights", "used with combination \"normalize_then_sum\" only");
    return;
  }
  if (c.part_weights.empty()) refuse("part_weights", "combination \"normalize_then_sum\" needs at least one part");
  if (c.baseline != Baseline::kGroupMean) refuse("baseline", "\"normalize_then_sum\" goes with \"group_mean\" only");
  if (c.scale != AdvantageScale::kGroup) refuse("scale", "\"normalize_then_sum\" goes with \"group\" only");
  if (c.overlong_max_tokens > 0)
    refuse("overlong_max_tokens", "\"normalize_then_sum\" knows parts only: use the overlong rule as one of them");
}

}  // namespace troupe
