#include "roles/jobs/compat.hpp"

#include <cmath>
#include <numbers>
#include <stdexcept>

namespace troupe {

Compat compat_of(const std::string& name) {
  if (name == "canonical") return {};
  if (name == "ref2603") return {.flush_epoch = false, .half_checkpoints = true, .dpo_mean = true};
  if (name == "ref2512")
    return {.samples = SampleStyle::kDecember2025,
            .rate_starts_above = true,
            .flush_epoch = false,
            .counts_from_two = true,
            .half_checkpoints = true,
            .dpo_balances = false,
            .dpo_mean = true};
  if (name == "fork2601")
    return {.samples = SampleStyle::kFork,
            .rate_starts_above = true,
            .flush_epoch = false,
            .counts_from_two = true,
            .fork_lora = true,
            .aux_coefficient = 0.1,
            .dpo_balances = false,
            .dpo_mean = true};
  throw std::invalid_argument("--compat: '" + name + "', expected canonical, ref2603, ref2512 or fork2601");
}

double rate_factor(const Compat& compat, int64_t s, int64_t total) {
  const double cosine = std::cos(std::numbers::pi * static_cast<double>(s) / static_cast<double>(total));
  return compat.rate_starts_above ? 0.1 + 0.5 * (1 + cosine) : 0.1 + 0.45 * (1 + cosine);
}

}  // namespace troupe
