#include "launcher/terminal.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string_view>

namespace troupe {
namespace {

void put(std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = write(STDOUT_FILENO, text.data(), text.size());
    if (n <= 0 && errno != EINTR) return;  // a display that can't be shown is no reason to end a run
    if (n > 0) text.remove_prefix(static_cast<std::size_t>(n));
  }
}

std::string_view variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

// Columns on the screen: escape sequences take none.
int columns_of(const std::string& line) {
  int columns = 0;
  for (std::size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '\033')
      while (i + 1 < line.size() && line[i] != 'm') ++i;
    else if ((static_cast<unsigned char>(line[i]) & 0xC0) != 0x80)
      ++columns;
  }
  return columns;
}

}  // namespace

bool live_terminal() {
  const std::string_view term = variable("TERM");
  return isatty(STDOUT_FILENO) && !term.empty() && term != "dumb";
}

FrameOptions terminal_options() {
  FrameOptions options;
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 0) {
    // One column less: a full line would wrap on some terminals.
    options.width = std::max(size.ws_col - 1, 20);
    options.height = std::max<int>(size.ws_row, 3);
  }
  options.colour = variable("NO_COLOR").empty();
  std::string_view locale = variable("LC_ALL");
  if (locale.empty()) locale = variable("LC_CTYPE");
  if (locale.empty()) locale = variable("LANG");
  options.unicode = locale.find("UTF-8") != locale.npos || locale.find("utf8") != locale.npos ||
                    locale.find("UTF8") != locale.npos || locale.find("utf-8") != locale.npos;
  return options;
}

LiveArea::LiveArea() {
  put("\033[?25l");
}
LiveArea::~LiveArea() {
  restore_terminal();
}

// Back to the area's first row. Rows are counted at the width of now: a terminal made narrower has wrapped the lines.
std::string LiveArea::erase(int width) const {
  int rows = 0;
  for (const std::string& line : drawn_) rows += 1 + std::max(0, columns_of(line) - 1) / std::max(width + 1, 1);
  return rows == 0 ? "" : "\r\033[" + std::to_string(rows) + "A\033[J";
}

void LiveArea::draw(const std::vector<std::string>& lines, int width) {
  std::string out = erase(width);
  for (const std::string& line : lines) out += line + "\n";
  drawn_ = lines;
  width_ = width;
  put(out);
}

void LiveArea::print_above(const std::string& line) {
  std::string out = erase(width_) + line + "\n";
  for (const std::string& kept : drawn_) out += kept + "\n";
  put(out);
}

void restore_terminal() {
  put("\033[0m\033[?25h");
}

}  // namespace troupe
