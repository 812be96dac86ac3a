// Line and stacked-bar charts as inline SVG text, coloured by the page's CSS variables (--c0 ... --c7, --grid, --text).
// Pure functions; any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace troupe {

struct Series {
  std::string name;
  std::vector<double> y;  // one per Chart::x; NaN: no value there
};

struct Chart {
  std::string title;
  std::string unit;       // "" where it has none
  std::vector<double> x;  // ascending
  std::vector<Series> series;
  bool stacked = false;  // bars on top of each other instead of lines
  bool smooth = true;    // lines of 30 points or more get a smoothed curve
};

// A <figure> with title, legend, the drawing, and the points as JSON for the page's read-out. A smoothed
// curve is an exponential mean over a twentieth of the points, drawn over the faint raw one.
std::string draw_chart(const Chart& chart);

// Text made safe for HTML element content and quoted attributes.
std::string escape_html(std::string_view text);

// Four significant digits at most, thousands as 12.3k: what axes, tiles and tables show.
std::string format_number(double value);

// Round values (1, 2, 2.5, 5 times a power of ten) that cover [low, high] with about `count` steps; a wider range where
// the two differ by rounding alone.
std::vector<double> axis_ticks(double low, double high, int count);

}  // namespace troupe
