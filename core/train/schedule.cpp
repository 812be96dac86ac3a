#include "core/train/schedule.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <stdexcept>

namespace troupe {

double schedule_factor(const ScheduleConfig& config, int64_t steps_done) {
  const bool constant = config.kind == "constant", linear = config.kind == "linear", cosine = config.kind == "cosine";
  if (!constant && !linear && !cosine)
    throw std::invalid_argument("schedule '" + config.kind + "': expected constant, linear or cosine");
  if (config.warmup_steps < 0)
    throw std::invalid_argument("schedule: warmup_steps is " + std::to_string(config.warmup_steps) + ", expected >= 0");
  if (!constant && config.total_steps <= 0)
    throw std::invalid_argument("schedule '" + config.kind + "' needs total_steps > 0");
  const double step = static_cast<double>(steps_done), warmup = static_cast<double>(config.warmup_steps);
  if (steps_done < config.warmup_steps) return step / std::max(1.0, warmup);
  if (constant) return 1.0;
  const double total = static_cast<double>(config.total_steps), span = std::max(1.0, total - warmup);
  if (linear) return std::max(0.0, (total - step) / span);
  return std::max(0.0, 0.5 * (1.0 + std::cos(std::numbers::pi * (step - warmup) / span)));
}

}  // namespace troupe
