#include "core/metrics/run_metrics.hpp"

#include <chrono>

namespace troupe {

RunMetrics::RunMetrics(const std::filesystem::path& run_folder, uint64_t last_step)
    : log_(run_folder / "metrics.jsonl", last_step), events_(run_folder / "tensorboard", last_step) {}

void RunMetrics::write(uint64_t step, const MetricValues& values) {
  log_.write(step, values);
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  events_.write(step, std::chrono::duration<double>(now).count(), values);
}

}  // namespace troupe
