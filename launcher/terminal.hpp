// A part of the terminal that is drawn again in place, by ANSI sequences alone. One thread draws; restore_terminal may
// be called from a signal handler.
#pragma once

#include <string>
#include <vector>

#include "launcher/run_view.hpp"

namespace troupe {

// Whether stdout is a terminal that understands ANSI (TERM is not dumb), its size now, colour (unless NO_COLOR is set),
// and whether the locale is UTF-8.
bool live_terminal();
FrameOptions terminal_options();

class LiveArea {
 public:
  LiveArea();   // hides the cursor
  ~LiveArea();  // leaves the last frame where it is and shows the cursor

  void draw(const std::vector<std::string>& lines, int width);
  // A line that scrolls away above the area.
  void print_above(const std::string& line);

 private:
  std::string erase(int width) const;
  std::vector<std::string> drawn_;
  int width_ = 80;
};

// The cursor is visible, colours are off. Async-signal-safe.
void restore_terminal();

}  // namespace troupe
