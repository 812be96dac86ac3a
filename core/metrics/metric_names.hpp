// The documented names of metrics.jsonl, in the order of docs/metrics.md. Other names may be written too; the report
// then draws them after the known ones. Families: "reward/RULE" is the mean of one rule's own values in the step,
// "seconds_PHASE" the wall time of one phase of the step, "staleness_LAG" the share of tokens of that age.
#pragma once

#include <span>
#include <string_view>

namespace troupe {

struct MetricName {
  std::string_view name;
  std::string_view unit;     // "" where it has none
  std::string_view meaning;  // one line
};

std::span<const MetricName> metric_names();

// The entry of `name`, found by family where the name belongs to one; null for a name that is not documented.
const MetricName* find_metric(std::string_view name);

inline constexpr std::string_view kRewardPartPrefix = "reward/";
inline constexpr std::string_view kSecondsPrefix = "seconds_";
inline constexpr std::string_view kStalenessPrefix = "staleness_";

}  // namespace troupe
