// What `troupe run` shows: a live frame where stdout is a terminal, else a line per step and per event.
// Thread-safe: status and events may come from different threads.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "launcher/run_view.hpp"
#include "launcher/terminal.hpp"

namespace troupe {

class RunDisplay {
 public:
  // `plain` forces lines also on a terminal.
  RunDisplay(const Topology& topology, const std::filesystem::path& run_folder, bool plain);

  // The steps there are already get no lines. Before anything else.
  void skip_earlier_steps() { view_.refresh(); }

  void status(const RunStatus& status);
  void preparing(const std::string& what, double share);  // before the first step
  void event(const std::string& line);
  // The last steps, and no live area any more; further output is ordinary.
  void finish();

 private:
  void print(const std::string& line);
  void show_steps();
  void draw(ViewTime now);
  std::mutex mutex_;
  RunView view_;
  std::optional<LiveArea> live_;
};

}  // namespace troupe
