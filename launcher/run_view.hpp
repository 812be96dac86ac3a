// A run as a person watching it wants to see it, gathered from heartbeats, metrics.jsonl and summary.json, and drawn as
// lines of text. No terminal and no clock here: time comes in, text goes out. One thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/metrics/metrics_log.hpp"
#include "protocol/messages.hpp"
#include "roles/topology.hpp"

namespace troupe {

using ViewTime = std::chrono::steady_clock::time_point;

// How many steps the run is to have; 0 where its conductor does not say.
uint64_t planned_steps(const Topology& topology);

struct FrameOptions {
  int width = 80;   // columns; no line is longer
  int height = 24;  // rows; no frame is higher
  bool colour = true;
  bool unicode = true;  // blocks and dots; else ASCII
};

class RunView {
 public:
  // `run_folder` is read for metrics.jsonl and summary.json as the run goes on.
  RunView(const Topology& topology, std::filesystem::path run_folder, ViewTime now);

  void take(const RunStatus& status, ViewTime now);
  // Something long before the first step, `share` of it done: shown in place of the steps until the next take().
  void prepare(const std::string& what, double share, ViewTime now);
  // The steps that were completed since the last call.
  std::vector<StepMetrics> refresh();

  // The live frame: header, progress, figures, one line per node. At most height lines of at most width columns.
  std::vector<std::string> frame(const FrameOptions& options, ViewTime now) const;
  // "step 12/60  reward 0.412  kl 0.0123  length 14.2  312 tokens/s  2.9 s  left 2:20"
  std::string step_line(const StepMetrics& step) const;
  // "node  phase  detail": what changed since the last call; for output that is no terminal.
  std::vector<std::string> phase_lines();
  // "reading big.jsonl: 40 %", at every tenth once; likewise.
  std::optional<std::string> preparing_line();

  uint64_t num_steps() const { return num_steps_; }

 private:
  struct NodeView {
    RoleStatus status;
    ViewTime phase_since;
    uint64_t restarts = 0;
    std::string phase_told;
  };
  struct Preparing {
    std::string what;
    double share = 0;
    ViewTime since;
    int tenths_told = -1;
  };
  std::string header(const FrameOptions& options) const;
  std::string progress(const FrameOptions& options, ViewTime now) const;
  std::string progress_line(const std::string& left, double share, ViewTime since, std::optional<double> left_s,
                            const FrameOptions& options, ViewTime now) const;
  std::string figures(const FrameOptions& options) const;
  std::string node_line(const std::string& name, const NodeView& node, int name_width, const FrameOptions& options,
                        ViewTime now) const;
  uint64_t step() const;
  std::optional<double> left_s() const;

  std::filesystem::path run_folder_;
  std::string name_;
  std::string model_;
  std::string algorithm_;
  uint64_t num_steps_ = 0;  // 0: not known
  ViewTime started_;
  std::string state_ = "starting";
  std::vector<std::string> order_;
  std::map<std::string, NodeView> nodes_;
  MetricsTail tail_;
  std::vector<StepMetrics> steps_;  // the last ones, enough for the curve and the time left
  std::optional<double> accuracy_before_;
  std::optional<Preparing> preparing_;
};

// "1:05", "2:03:09".
std::string clock_text(double seconds);

// Cut to `width` columns (a character counts as one), with "…" or "~" at the cut; control characters become spaces.
std::string fit(const std::string& text, int width, bool unicode);

// Eight heights of blocks (or of ASCII), the newest value at the right end, scaled between the smallest and largest.
std::string sparkline(const std::vector<double>& values, int width, bool unicode);

}  // namespace troupe
