// What the conductor calls once per step: the line in RUN/metrics.jsonl and the scalars in RUN/tensorboard/.
#pragma once

#include "core/metrics/event_file.hpp"
#include "core/metrics/metrics_log.hpp"

namespace troupe {

class RunMetrics {
 public:
  // `last_step` is the step the run goes on from, 0 for a new one; see MetricsLog and EventFile.
  RunMetrics(const std::filesystem::path& run_folder, uint64_t last_step);
  void write(uint64_t step, const MetricValues& values);

 private:
  MetricsLog log_;
  EventFile events_;
};

}  // namespace troupe
