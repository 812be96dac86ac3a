#include "launcher/run_display.hpp"

#include <cstdio>

namespace troupe {

RunDisplay::RunDisplay(const Topology& topology, const std::filesystem::path& run_folder, bool plain)
    : view_(topology, run_folder, std::chrono::steady_clock::now()) {
  if (!plain && live_terminal()) live_.emplace();
}

void RunDisplay::status(const RunStatus& status) {
  const std::lock_guard lock(mutex_);
  const ViewTime now = std::chrono::steady_clock::now();
  view_.take(status, now);
  if (!live_)
    for (const std::string& line : view_.phase_lines()) print(line);
  show_steps();
  draw(now);
}

void RunDisplay::preparing(const std::string& what, double share) {
  const std::lock_guard lock(mutex_);
  const ViewTime now = std::chrono::steady_clock::now();
  view_.prepare(what, share, now);
  if (live_) return draw(now);
  if (const auto line = view_.preparing_line()) print(*line);
}

void RunDisplay::draw(ViewTime now) {
  if (!live_) return;
  const FrameOptions options = terminal_options();
  live_->draw(view_.frame(options, now), options.width);
}

void RunDisplay::event(const std::string& line) {
  const std::lock_guard lock(mutex_);
  print(line);
}

void RunDisplay::finish() {
  const std::lock_guard lock(mutex_);
  show_steps();
  live_.reset();
}

void RunDisplay::print(const std::string& line) {
  if (live_) return live_->print_above(line);
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

void RunDisplay::show_steps() {
  for (const StepMetrics& step : view_.refresh())
    if (!live_) print(view_.step_line(step));
}

}  // namespace troupe
