#include "core/metrics/report.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>

#include "core/io/disk.hpp"
#include "core/metrics/chart.hpp"
#include "core/metrics/metric_names.hpp"
#include "core/metrics/report_style.hpp"
#include "core/metrics/summary.hpp"

namespace troupe {
namespace {

using nlohmann::json;
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
constexpr std::size_t kMaxPoints = 600;  // longer runs are averaged down to this many points a chart

// The steps of a run as columns, averaged down to at most kMaxPoints rows.
class Columns {
 public:
  explicit Columns(const std::vector<StepMetrics>& steps) {
    const std::size_t per_row = (steps.size() + kMaxPoints - 1) / std::max<std::size_t>(kMaxPoints, 1);
    for (std::size_t from = 0; from < steps.size(); from += per_row)
      add_row({steps.begin() + static_cast<std::ptrdiff_t>(from),
               steps.begin() + static_cast<std::ptrdiff_t>(std::min(from + per_row, steps.size()))});
    for (auto& [name, column] : columns_) column.resize(x_.size(), kNone);
  }

  const std::vector<double>& x() const { return x_; }
  bool has(const std::string& name) const { return columns_.contains(name); }
  const std::vector<double>& operator[](const std::string& name) const { return columns_.at(name); }
  std::vector<std::string> with_prefix(std::string_view prefix) const {
    std::vector<std::string> names;
    for (const auto& [name, column] : columns_)
      if (name.starts_with(prefix)) names.push_back(name);
    return names;
  }
  double last(const std::string& name) const {
    const auto found = columns_.find(name);
    if (found == columns_.end()) return kNone;
    for (auto v = found->second.rbegin(); v != found->second.rend(); ++v)
      if (std::isfinite(*v)) return *v;
    return kNone;
  }

 private:
  void add_row(std::span<const StepMetrics> steps) {
    std::map<std::string, std::pair<double, double>> sums;
    for (const StepMetrics& step : steps)
      for (const auto& [name, value] : step.values)
        if (std::isfinite(value)) sums[name].first += value, sums[name].second += 1;
    x_.push_back(static_cast<double>(steps.back().step));
    for (const auto& [name, sum] : sums) {
      columns_[name].resize(x_.size() - 1, kNone);
      columns_[name].push_back(sum.first / sum.second);
    }
  }

  std::vector<double> x_;
  std::map<std::string, std::vector<double>> columns_;
};

struct Panel {
  std::string title;
  std::string unit;
  std::vector<std::pair<std::string, std::string>> lines;  // metric, label
  bool smooth = true;
};

// What the page shows first, in this order; what a run did not measure is left out.
const std::vector<Panel>& panels() {
  static const std::vector<Panel> all = {
      {"Reward", "", {{"reward_mean", "mean"}, {"reward_min", "min"}, {"reward_max", "max"}}},
      {"KL to the reference", "nats per token", {{"kl", "kl"}}},
      {"Answer length", "tokens", {{"response_length_mean", "mean"}, {"response_length_max", "max"}}},
      {"Entropy", "nats per token", {{"entropy", "entropy"}}},
      {"Loss", "", {{"loss", "loss"}}},
      {"Gradient norm", "before clipping", {{"grad_norm", "grad_norm"}}},
      {"Learning rate", "", {{"lr", "lr"}}, false},
      {"Clipped and cut",
       "share",
       {{"clip_fraction", "ratio clipped"},
        {"clip_fraction_low", "clipped low"},
        {"clip_fraction_high", "clipped high"},
        {"truncated_fraction", "answers cut"},
        {"groups_without_signal", "groups without signal"}}},
      {"Speed", "tokens/s", {{"tokens_per_s_generate", "generate"}, {"tokens_per_s_train", "train"}}},
      {"Staleness", "versions", {{"staleness", "staleness"}}, false},
  };
  return all;
}

std::string draw_panel(const Panel& panel, const Columns& columns, std::set<std::string>& shown) {
  Chart chart{panel.title, panel.unit, columns.x(), {}, false, panel.smooth};
  for (const auto& [metric, label] : panel.lines) {
    if (!columns.has(metric)) continue;
    shown.insert(metric);
    chart.series.push_back({label, columns[metric]});
  }
  return chart.series.empty() ? "" : draw_chart(chart);
}

std::string draw_family(const std::string& title, const std::string& unit, std::string_view prefix, bool stacked,
                        const Columns& columns, std::set<std::string>& shown) {
  Chart chart{title, unit, columns.x(), {}, stacked};
  for (const std::string& name : columns.with_prefix(prefix)) {
    shown.insert(name);
    if (name != "seconds_step") chart.series.push_back({name.substr(prefix.size()), columns[name]});
  }
  return chart.series.empty() ? "" : draw_chart(chart);
}

double number_in(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number() ? found->get<double>() : kNone;
}

// The evaluations between, and those of the summary before the first and after the last step.
std::string draw_accuracy(const Columns& columns, const json& summary) {
  Chart chart{"Held-out accuracy", "share right", {}, {{"accuracy", {}}}, false, false};
  const auto add = [&](double step, double accuracy) {
    if (!std::isfinite(accuracy) || (!chart.x.empty() && chart.x.back() == step)) return;
    chart.x.push_back(step);
    chart.series[0].y.push_back(accuracy);
  };
  add(0, number_in(summary, "accuracy_before"));
  for (std::size_t i = 0; columns.has("accuracy") && i < columns.x().size(); ++i)
    add(columns.x()[i], columns["accuracy"][i]);
  add(columns.x().back(), number_in(summary, "accuracy_after"));
  return draw_chart(chart);
}

std::string draw_all(const Columns& columns, const json& summary) {
  std::set<std::string> shown{"time_s", "reward_std", "weights_version", "weights_digest", "num_sequences", "accuracy"};
  std::string out = "<div class=\"charts\">\n";
  for (const Panel& panel : panels()) {
    out += draw_panel(panel, columns, shown);
    if (panel.title == "Reward")
      out +=
          draw_family("Reward by rule", "", kRewardPartPrefix, false, columns, shown) + draw_accuracy(columns, summary);
    if (panel.title == "Speed") out += draw_family("Time per step", "seconds", kSecondsPrefix, true, columns, shown);
  }
  for (const std::string& name : columns.with_prefix("")) {
    if (shown.contains(name)) continue;
    const MetricName* known = find_metric(name);
    out += draw_panel({name, known ? std::string(known->unit) : "", {{name, name}}, false}, columns, shown);
  }
  return out + "</div>\n";
}

std::string duration_text(double s) {
  if (!std::isfinite(s)) return "–";
  const auto whole = static_cast<long long>(std::llround(s));
  char text[48];
  if (whole >= 3600)
    std::snprintf(text, sizeof(text), "%lld h %02lld min", whole / 3600, whole / 60 % 60);
  else if (whole >= 60)
    std::snprintf(text, sizeof(text), "%lld min %02lld s", whole / 60, whole % 60);
  else
    std::snprintf(text, sizeof(text), "%.3g s", s);
  return text;
}

std::string tile(const std::string& label, const std::string& value, const std::string& extra = "") {
  return "<div class=\"tile\"><span>" + label + "</span><b>" + value + "</b>" + extra + "</div>\n";
}

std::string percent(double share) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.3g %%", share * 100);
  return text;
}

std::string tiles(const std::vector<StepMetrics>& steps, const Columns& columns, const json& summary) {
  std::string out = "<div class=\"tiles\">\n";
  const double before = number_in(summary, "accuracy_before"), after = number_in(summary, "accuracy_after");
  if (std::isfinite(before)) out += tile("held-out accuracy before", percent(before));
  if (std::isfinite(after)) {
    char change[64] = "";
    if (std::isfinite(before))
      std::snprintf(change, sizeof(change), "<em class=\"%s\">%+.1f points</em>", after < before ? "down" : "up",
                    (after - before) * 100);
    out += tile("held-out accuracy after", percent(after), change);
  }
  out += tile("steps", std::to_string(steps.empty() ? 0 : steps.back().step));
  const double wall = number_in(summary, "wall_s");
  out += tile("time", duration_text(std::isfinite(wall) ? wall : columns.last("time_s")));
  if (columns.has("reward_mean"))
    out += tile("last reward", format_number(columns.last("reward_mean")),
                "<em>from " + format_number(columns["reward_mean"].front()) + "</em>");
  if (columns.has("kl")) out += tile("last KL", format_number(columns.last("kl")));
  if (columns.has("tokens_per_s_generate"))
    out += tile("generation", format_number(columns.last("tokens_per_s_generate")), "<em>tokens/s</em>");
  if (columns.has("restarts")) out += tile("restarts", format_number(columns.last("restarts")));
  return out + "</div>\n";
}

std::string value_text(const json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_float()) return format_number(value.get<double>());
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string table(const std::string& title, const json& object) {
  if (!object.is_object() || object.empty()) return "";
  std::string out = "<div><h2>" + title + "</h2><div class=\"box\"><table>\n";
  for (const auto& [key, value] : object.items())
    out += "<tr><th>" + escape_html(key) + "</th><td>" + escape_html(value_text(value)) + "</td></tr>\n";
  return out + "</table></div></div>\n";
}

std::string subtitle(const json& topology, const json& run) {
  std::vector<std::string> parts;
  if (topology.contains("algorithm") && topology["algorithm"].is_object())
    parts.push_back(topology["algorithm"].value("type", ""));
  for (const char* key : {"model"})
    if (topology.contains(key) && topology[key].is_string()) parts.push_back(topology[key].get<std::string>());
  for (const char* key : {"started", "state"})
    if (run.contains(key) && run[key].is_string()) parts.push_back(run[key].get<std::string>());
  std::string out;
  for (const std::string& part : parts)
    if (!part.empty()) out += (out.empty() ? "" : " · ") + escape_html(part);
  return out;
}

json object_in(const std::filesystem::path& file) {
  std::ifstream in(file);
  const json parsed = in ? json::parse(in, nullptr, false) : json::object();
  return parsed.is_object() ? parsed : json::object();
}

}  // namespace

std::string render_report(const std::string& title, const std::vector<StepMetrics>& steps, const json& summary,
                          const json& topology, const json& run) {
  const Columns columns(steps);
  std::string page =
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>" +
      escape_html(title) + " – Troupe</title><style>" + std::string(kReportStyle) +
      "</style></head><body><main>\n<h1>" + escape_html(title) + "</h1>\n<p class=\"sub\">" + subtitle(topology, run) +
      "</p>\n" + tiles(steps, columns, summary) + "<h2>Curves</h2>\n" +
      (steps.empty() ? "<p class=\"sub\">No step was completed.</p>\n" : draw_all(columns, summary)) +
      "<div class=\"pair\">" + table("Summary", summary) +
      table("Environment", run.value("environment", json::object())) + "</div>\n";
  if (!topology.empty())
    page +=
        "<h2>Configuration</h2><div class=\"box\"><details><summary>with every default filled in"
        "</summary><pre>" +
        escape_html(topology.dump(2, ' ', false, json::error_handler_t::replace)) + "</pre></details></div>\n";
  return page + "<footer>Written by troupe from metrics.jsonl. Needs no network.</footer></main><script>" +
         std::string(kReportScript) + "</script></body></html>\n";
}

void write_report(const std::filesystem::path& run_folder) {
  const std::vector<StepMetrics> steps = read_metrics(run_folder / "metrics.jsonl");
  const json run = object_in(run_folder / "run.json");
  const std::string name = run.value("name", run_folder.filename().string());
  const bool is_job = std::filesystem::exists(run_folder / "job.json");  // a single-role job
  const json settings = object_in(run_folder / (is_job ? "job.json" : "topology.json"));
  const std::string page = render_report(name, steps, read_summary(run_folder), settings, run);
  const std::filesystem::path file = run_folder / "report.html";
  std::ofstream out(file, std::ios::binary | std::ios::trunc);
  if (!(out << page << std::flush)) throw DiskError("write", file, errno);
}

}  // namespace troupe
