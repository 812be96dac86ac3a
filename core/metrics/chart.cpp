#include "core/metrics/chart.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <nlohmann/json.hpp>

namespace troupe {
namespace {

// The drawing's own units; CSS scales it to the card.
constexpr double kWidth = 480, kHeight = 210, kLeft = 46, kRight = 8, kTop = 8, kBottom = 24;
constexpr std::size_t kColours = 8;
constexpr std::size_t kSmoothFrom = 30;
// Values are drawn as if none were larger, and as if all smaller ones were nought.
constexpr double kLargest = 1e300, kSmallest = 1e-12;

struct Scale {
  double low, high, from, to;
  double operator()(double v) const { return from + (v - low) / (high - low) * (to - from); }
};

std::string point(double v) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f", v);
  return text;
}

std::string colour_class(std::size_t i) {
  return "c" + std::to_string(i % kColours);
}

std::vector<double> smoothed(const std::vector<double>& y) {
  const double keep = 1.0 - 2.0 / (1.0 + std::max(2.0, static_cast<double>(y.size()) / 20.0));
  std::vector<double> out(y.size(), std::numeric_limits<double>::quiet_NaN());
  double sum = 0, weight = 0;
  for (std::size_t i = 0; i < y.size(); ++i) {
    sum *= keep, weight *= keep;
    if (std::isfinite(y[i])) sum += y[i], weight += 1;
    if (weight > 0) out[i] = sum / weight;
  }
  return out;
}

std::string line_path(const Chart& chart, const std::vector<double>& y, const Scale& sx, const Scale& sy) {
  std::string path;
  for (std::size_t i = 0; i < y.size(); ++i)
    if (std::isfinite(y[i])) path += (path.empty() ? "M" : "L") + point(sx(chart.x[i])) + " " + point(sy(y[i]));
  return path;
}

std::string draw_line(const Chart& chart, std::size_t index, const Scale& sx, const Scale& sy) {
  const std::vector<double>& y = chart.series[index].y;
  const auto num_points = static_cast<std::size_t>(std::ranges::count_if(y, [](double v) { return std::isfinite(v); }));
  const bool smooth = chart.smooth && num_points >= kSmoothFrom;
  std::string out = "<path class=\"line " + colour_class(index) + (smooth ? " raw" : "") + "\" d=\"" +
                    line_path(chart, y, sx, sy) + "\"/>";
  if (smooth)
    out += "<path class=\"line " + colour_class(index) + "\" d=\"" + line_path(chart, smoothed(y), sx, sy) + "\"/>";
  if (num_points > 12) return out;
  for (std::size_t i = 0; i < y.size(); ++i)
    if (std::isfinite(y[i]))
      out += "<circle class=\"dot " + colour_class(index) + "\" r=\"2.5\" cx=\"" + point(sx(chart.x[i])) + "\" cy=\"" +
             point(sy(y[i])) + "\"/>";
  return out;
}

std::string draw_bars(const Chart& chart, const Scale& sx, const Scale& sy) {
  std::vector<double> base(chart.x.size(), 0.0);
  const double pitch = (kWidth - kLeft - kRight) / static_cast<double>(chart.x.size());
  const double width = std::max(0.5, std::min(pitch - (pitch > 4 ? 1 : 0), 40.0));
  std::string out;
  for (std::size_t s = 0; s < chart.series.size(); ++s) {
    std::string path;
    for (std::size_t i = 0; i < chart.x.size(); ++i) {
      const double y = chart.series[s].y[i];
      if (!(y > 0)) continue;
      const double left = std::clamp(sx(chart.x[i]) - width / 2, kLeft, kWidth - kRight - width);
      path += "M" + point(left) + " " + point(sy(base[i])) + "h" + point(width) + "V" + point(sy(base[i] + y)) + "h" +
              point(-width) + "Z";
      base[i] += y;
    }
    out += "<path class=\"bar " + colour_class(s) + "\" d=\"" + path + "\"/>";
  }
  return out;
}

std::pair<double, double> value_range(const Chart& chart) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (std::size_t i = 0; i < chart.x.size(); ++i) {
    double sum = 0;
    for (const Series& s : chart.series) {
      if (!std::isfinite(s.y[i])) continue;
      sum = chart.stacked ? sum + s.y[i] : s.y[i];
      low = std::min(low, chart.stacked ? 0.0 : sum);
      high = std::max(high, sum);
    }
  }
  if (low > high) return {0, 1};
  if (low == high) return {low - (low == 0 ? 0 : std::abs(low) / 10), high + (high == 0 ? 1 : std::abs(high) / 10)};
  return {low, high};
}

std::string draw_axes(const std::vector<double>& x_ticks, const std::vector<double>& y_ticks, const Scale& sx,
                      const Scale& sy) {
  std::string out;
  for (double t : y_ticks) {
    const std::string y = point(sy(t));
    out += "<line class=\"grid\" x1=\"" + point(kLeft) + "\" x2=\"" + point(kWidth - kRight) + "\" y1=\"" + y +
           "\" y2=\"" + y + "\"/><text class=\"tick\" text-anchor=\"end\" x=\"" + point(kLeft - 6) + "\" y=\"" +
           point(sy(t) + 3.5) + "\">" + format_number(t) + "</text>";
  }
  for (double t : x_ticks)
    out += "<text class=\"tick\" text-anchor=\"middle\" x=\"" + point(sx(t)) + "\" y=\"" + point(kHeight - 8) + "\">" +
           format_number(t) + "</text>";
  return out;
}

// What the page's script needs to answer the pointer: the points, and where they lie.
std::string points_json(const Chart& chart, const Scale& sx) {
  nlohmann::json series = nlohmann::json::array();
  for (const Series& s : chart.series) {
    nlohmann::json values = nlohmann::json::array();
    for (double v : s.y)
      values.push_back(std::isfinite(v) ? nlohmann::json(format_number(v)) : nlohmann::json(nullptr));
    series.push_back({{"name", s.name}, {"y", values}});
  }
  nlohmann::json pixels = nlohmann::json::array();
  for (double x : chart.x) pixels.push_back(std::round(sx(x) * 10) / 10);
  return nlohmann::json{{"x", chart.x}, {"px", pixels}, {"s", series}, {"unit", chart.unit}}.dump(
      -1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string caption(const Chart& chart) {
  std::string out = "<figcaption><b>" + escape_html(chart.title) + "</b>";
  if (!chart.unit.empty()) out += " <i>" + escape_html(chart.unit) + "</i>";
  out += "<span class=\"readout\">";
  for (std::size_t s = 0; s < chart.series.size(); ++s)
    if (chart.series.size() > 1)
      out += "<span class=\"key " + colour_class(s) + "\">" + escape_html(chart.series[s].name) + "</span> ";
  return out + "</span></figcaption>";
}

}  // namespace

std::string draw_chart(const Chart& chart) {
  if (chart.x.empty()) return "";
  const auto [low, high] = value_range(chart);
  const std::vector<double> y_ticks = axis_ticks(low, high, 4);
  double x_low = chart.x.front(), x_high = chart.x.back();
  if (x_low == x_high) x_low -= 0.5, x_high += 0.5;
  const Scale sx{x_low, x_high, kLeft + 4, kWidth - kRight - 4};
  const Scale sy{y_ticks.front(), y_ticks.back(), kHeight - kBottom, kTop};
  std::vector<double> x_ticks = axis_ticks(x_low, x_high, 6);
  std::erase_if(x_ticks, [&](double t) { return t < x_low || t > x_high || t != std::floor(t); });

  std::string out = "<figure data-points=\"" + escape_html(points_json(chart, sx)) + "\">" + caption(chart) +
                    "<svg viewBox=\"0 0 " + point(kWidth) + " " + point(kHeight) + "\" role=\"img\" aria-label=\"" +
                    escape_html(chart.title) + "\">" + draw_axes(x_ticks, y_ticks, sx, sy);
  if (chart.stacked) out += draw_bars(chart, sx, sy);
  for (std::size_t s = 0; s < chart.series.size() && !chart.stacked; ++s) out += draw_line(chart, s, sx, sy);
  return out + "<line class=\"cursor\" y1=\"" + point(kTop) + "\" y2=\"" + point(kHeight - kBottom) +
         "\"/></svg></figure>\n";
}

std::string escape_html(std::string_view text) {
  std::string out;
  for (char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string format_number(double value) {
  if (!std::isfinite(value)) return "–";
  const double size = std::abs(value);
  char text[32];
  if (size >= 1e6)
    std::snprintf(text, sizeof(text), "%.4gM", value / 1e6);
  else if (size >= 1e4)
    std::snprintf(text, sizeof(text), "%.4gk", value / 1e3);
  else if (size < 1e-12)
    return "0";
  else
    std::snprintf(text, sizeof(text), "%.4g", value);
  return text;
}

std::vector<double> axis_ticks(double low, double high, int count) {
  low = std::clamp(low, -kLargest, kLargest), high = std::clamp(high, -kLargest, kLargest);
  // What differs by rounding alone is one value: ticks between would be nearer to each other than numbers are.
  const double size = std::max({std::abs(low), std::abs(high), kSmallest});
  if (high - low < size * 1e-9) low -= size / 10, high += size / 10;
  const double rough = (high - low) / count;
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (double nice : {5.0, 2.5, 2.0, 1.0})
    if (nice * power >= rough * 0.999) step = nice * power;
  std::vector<double> ticks;
  const double first = std::floor(low / step + 1e-9), last = std::ceil(high / step - 1e-9);
  for (double k = first; k <= last; ++k) ticks.push_back(k * step);
  return ticks;
}

}  // namespace troupe
