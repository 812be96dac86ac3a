// TensorBoard event files: scalars only, written by hand (TFRecord framing with masked CRC-32C around Event messages
// of tensorflow/core/util/event.proto), so that no protobuf library is needed.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "core/metrics/metrics_log.hpp"

namespace troupe {

// One file of one process life; a folder holds as many as the run had starts. One thread; flushed after each step.
// Throws std::runtime_error naming the file when it cannot be written.
class EventFile {
 public:
  // Makes `folder` and a new file in it. A resumed run says so (a session start at last_step + 1), which makes
  // TensorBoard forget what an earlier file holds of later steps.
  EventFile(const std::filesystem::path& folder, uint64_t last_step);

  // One Event with a scalar per value (float32, the format's own); `wall_time_s` counts from 1970. Values that are not
  // finite are left out.
  void write(uint64_t step, double wall_time_s, const MetricValues& values);

  const std::filesystem::path& file() const { return file_; }

 private:
  void append(const std::string& event);

  struct Close {
    void operator()(std::FILE* f) const { std::fclose(f); }
  };
  std::filesystem::path file_;
  std::unique_ptr<std::FILE, Close> out_;
};

}  // namespace troupe
