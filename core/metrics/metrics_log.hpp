// RUN/metrics.jsonl: one JSON object per step, {"step": 12, "time_s": 31.4, "reward_mean": 0.41, ...}, numbers only,
// null where a value was not finite. Appended and flushed line by line, so that anyone may follow it.
// Names: metric_names.hpp and docs/metrics.md.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace troupe {

using MetricValues = std::map<std::string, double>;

struct StepMetrics {
  uint64_t step = 0;
  MetricValues values;  // without "step"; NaN where the file says null
};

// The writer. One thread. Throws std::runtime_error naming the file when it cannot be read,
// DiskError when it cannot be written: part of a line may then stand there, which opening it anew cuts away.
class MetricsLog {
 public:
  // Opens for appending. Lines of steps after `last_step` and a torn last line are cut away first, so that a resumed
  // run never holds a step twice. time_s goes on from the last line that is kept.
  MetricsLog(std::filesystem::path file, uint64_t last_step);

  // Adds "step" and, unless given, "time_s". Throws std::invalid_argument unless `step` is later than the last one.
  void write(uint64_t step, const MetricValues& values);

  const std::filesystem::path& file() const { return file_; }

 private:
  struct Close {
    void operator()(std::FILE* f) const { std::fclose(f); }
  };
  std::filesystem::path file_;
  std::unique_ptr<std::FILE, Close> out_;
  uint64_t last_step_ = 0;
  double time_before_s_ = 0;  // of the lines kept
  double opened_at_s_ = 0;    // monotonic clock
};

// Follows a metrics.jsonl that another process writes. One thread.
class MetricsTail {
 public:
  explicit MetricsTail(std::filesystem::path file) : file_(std::move(file)) {}

  // The steps completed since the last call, in order; none while the file does not exist. A file cut back by a resume
  // is read again from its start, and steps seen before are not given again.
  // Throws std::runtime_error naming file and line of a line that is no step.
  std::vector<StepMetrics> take_new();

 private:
  std::filesystem::path file_;
  uint64_t offset_bytes_ = 0;
  uint64_t line_ = 0;
  uint64_t last_step_ = 0;
};

// Cuts the file off before the first line that is no step (a power cut can leave zeros in the middle of a file). True
// when there was one. Throws std::runtime_error naming a file that can't be cut.
bool cut_damaged_metrics(const std::filesystem::path& file);

// All complete lines; a torn last line is left out. Throws as MetricsTail does, and when the file does not exist.
std::vector<StepMetrics> read_metrics(const std::filesystem::path& file);

}  // namespace troupe
