// Learning rate over steps: the factor on the configured rate, as transformers' get_constant_schedule_with_warmup,
// get_linear_schedule_with_warmup and get_cosine_schedule_with_warmup (half a cosine) compute it.
#pragma once

#include <cstdint>
#include <string>

namespace troupe {

struct ScheduleConfig {
  std::string kind = "constant";  // "constant", "linear", "cosine"
  int64_t warmup_steps = 0;
  int64_t total_steps = 0;  // linear, cosine: where the factor reaches 0
};

// The factor for the update that follows `steps_done` updates. Throws std::invalid_argument for an unknown kind, or a
// decaying schedule without total_steps.
double schedule_factor(const ScheduleConfig& config, int64_t steps_done);

}  // namespace troupe
