#include "launcher/run_view.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "core/metrics/chart.hpp"
#include "core/metrics/summary.hpp"

namespace troupe {
namespace {

constexpr std::size_t kKeptSteps = 200;
constexpr std::size_t kStepsForPace = 10;

double seconds(ViewTime::duration d) {
  return std::chrono::duration<double>(d).count();
}

std::string coloured(const std::string& text, const char* code, const FrameOptions& options) {
  return options.colour ? std::string("\033[") + code + "m" + text + "\033[0m" : text;
}

// Columns of UTF-8 text: one a code point.
int columns_of(const std::string& text) {
  return static_cast<int>(std::ranges::count_if(text, [](unsigned char c) { return (c & 0xC0) != 0x80; }));
}

std::string padded(const std::string& text, int width) {
  return text + std::string(static_cast<std::size_t>(std::max(0, width - columns_of(text))), ' ');
}

double value_of(const StepMetrics& step, const std::string& name) {
  const auto found = step.values.find(name);
  return found == step.values.end() ? std::nan("") : found->second;
}

std::string percent(double share) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.3g %%", share * 100);
  return text;
}

std::string bar(double share, int width, bool unicode) {
  const int full = std::clamp(static_cast<int>(std::lround(share * width)), 0, width);
  std::string out;
  for (int i = 0; i < width; ++i) out += i < full ? (unicode ? "█" : "#") : (unicode ? "░" : ".");
  return out;
}

// Adds "label value" while the line stays within `width`.
void add_figure(std::string& line, const std::string& text, int width) {
  const std::string joined = line.empty() ? text : line + "   " + text;
  if (columns_of(joined) <= width) line = joined;
}

}  // namespace

uint64_t planned_steps(const Topology& topology) {
  for (const NodeSection& node : topology.nodes)
    if (role_of(node) == "conductor")
      if (const auto steps = node.config.find("steps"); steps != node.config.end() && steps->is_number_unsigned())
        return steps->get<uint64_t>();
  return 0;
}

std::string clock_text(double s) {
  if (!std::isfinite(s) || s < 0) return "-";
  const auto whole = static_cast<long long>(s);
  char text[48];
  if (whole >= 3600)
    std::snprintf(text, sizeof(text), "%lld:%02lld:%02lld", whole / 3600, whole / 60 % 60, whole % 60);
  else
    std::snprintf(text, sizeof(text), "%lld:%02lld", whole / 60, whole % 60);
  return text;
}

std::string fit(const std::string& text, int width, bool unicode) {
  if (width <= 0) return "";
  std::string out;
  int columns = 0;
  const bool cut = columns_of(text) > width;
  for (std::size_t i = 0; i < text.size();) {
    if (columns == width - (cut ? 1 : 0)) break;
    std::size_t next = i + 1;
    while (next < text.size() && (static_cast<unsigned char>(text[next]) & 0xC0) == 0x80) ++next;
    const auto c = static_cast<unsigned char>(text[i]);
    out += c < 0x20 || c == 0x7F ? " " : text.substr(i, next - i);
    i = next;
    ++columns;
  }
  if (cut) out += unicode ? "…" : "~";
  return out;
}

std::string sparkline(const std::vector<double>& values, int width, bool unicode) {
  static constexpr const char* kBlocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  static constexpr const char* kAscii[] = {"_", ".", ",", "-", "=", "+", "*", "#"};
  std::vector<double> shown;
  for (double v : values)
    if (std::isfinite(v)) shown.push_back(v);
  if (shown.size() > static_cast<std::size_t>(width)) shown.erase(shown.begin(), shown.end() - width);
  if (shown.empty()) return "";
  const auto [low, high] = std::ranges::minmax(shown);
  std::string out;
  for (double v : shown) {
    const int level = high > low ? static_cast<int>((v - low) / (high - low) * 7.999) : 3;
    out += (unicode ? kBlocks : kAscii)[level];
  }
  return out;
}

RunView::RunView(const Topology& topology, std::filesystem::path run_folder, ViewTime now)
    : run_folder_(std::move(run_folder)),
      name_(run_folder_.filename().string()),
      model_(std::filesystem::path(*topology.model).filename().string()),
      algorithm_(topology.algorithm.value("type", "")),
      num_steps_(planned_steps(topology)),
      started_(now),
      tail_(run_folder_ / "metrics.jsonl") {
  for (const NodeSection& node : topology.nodes)
    for (const std::string& instance : instances_of(node)) order_.push_back(instance);
}

void RunView::take(const RunStatus& status, ViewTime now) {
  state_ = status.state;
  preparing_.reset();
  for (const RoleStatus& seen : status.nodes) {
    auto [it, fresh] = nodes_.try_emplace(seen.node);
    NodeView& node = it->second;
    if (fresh || node.status.phase != seen.phase || node.status.incarnation != seen.incarnation) node.phase_since = now;
    node.status = seen;
    const auto restarts = status.restarts.find(seen.node);
    node.restarts = restarts == status.restarts.end() ? 0 : restarts->second;
    if (fresh && std::ranges::find(order_, seen.node) == order_.end()) order_.push_back(seen.node);
  }
}

void RunView::prepare(const std::string& what, double share, ViewTime now) {
  if (!preparing_ || preparing_->what != what) preparing_ = {.what = what, .since = now};
  preparing_->share = share;
}

std::vector<StepMetrics> RunView::refresh() {
  const std::vector<StepMetrics> fresh = tail_.take_new();
  steps_.insert(steps_.end(), fresh.begin(), fresh.end());
  if (steps_.size() > kKeptSteps) steps_.erase(steps_.begin(), steps_.end() - kKeptSteps);
  if (!accuracy_before_ || num_steps_ == 0) {
    const nlohmann::json summary = read_summary(run_folder_);
    if (const auto found = summary.find("accuracy_before"); found != summary.end() && found->is_number())
      accuracy_before_ = found->get<double>();
    // A single-role job knows its number of steps when it has seen its data.
    if (const auto found = summary.find("planned_steps"); found != summary.end() && found->is_number_unsigned())
      num_steps_ = found->get<uint64_t>();
  }
  return fresh;
}

// A job's trainer counts its batches in `progress`; a line of metrics comes only every few.
uint64_t RunView::step() const {
  const uint64_t logged = steps_.empty() ? 0 : steps_.back().step;
  const auto trainer = nodes_.find("trainer/0");
  return trainer == nodes_.end() ? logged : std::max(logged, trainer->second.status.progress);
}

std::optional<double> RunView::left_s() const {
  if (num_steps_ == 0 || steps_.size() < 2 || step() >= num_steps_) return std::nullopt;
  const StepMetrics& from = steps_[steps_.size() > kStepsForPace ? steps_.size() - 1 - kStepsForPace : 0];
  const double took_s = value_of(steps_.back(), "time_s") - value_of(from, "time_s");
  const double pace = took_s / static_cast<double>(steps_.back().step - from.step);
  return std::isfinite(pace) ? std::optional(pace * static_cast<double>(num_steps_ - step())) : std::nullopt;
}

std::string RunView::header(const FrameOptions& options) const {
  const char* dot = options.unicode ? " · " : " - ";
  std::string text = "troupe  " + name_ + dot + model_;
  if (!algorithm_.empty()) text += dot + algorithm_;
  return coloured(fit(text + dot + state_, options.width, options.unicode), "1", options);
}

// What, a bar, the share, the time since and the time left, as far as there is room.
std::string RunView::progress_line(const std::string& left, double share, ViewTime since, std::optional<double> left_s,
                                   const FrameOptions& options, ViewTime now) const {
  char part[16];
  std::snprintf(part, sizeof(part), "%3.0f %%", share * 100);
  std::string right = std::string(part) + "  " + clock_text(seconds(now - since));
  if (left_s) right += ", " + clock_text(*left_s) + " left";
  const int room = options.width - columns_of(left) - columns_of(right) - 4;
  if (room < 8) return fit(left + "  " + right, options.width, options.unicode);
  return left + "  " + coloured(bar(share, std::min(room, 40), options.unicode), "36", options) + "  " + right;
}

std::string RunView::progress(const FrameOptions& options, ViewTime now) const {
  if (preparing_) {
    const double took_s = seconds(now - preparing_->since), share = preparing_->share;
    const auto left_s = share > 0 ? std::optional(took_s / share * (1 - share)) : std::nullopt;
    return progress_line(preparing_->what, share, preparing_->since, left_s, options, now);
  }
  const std::string left = "step " + std::to_string(step());
  if (num_steps_ == 0) return fit(left + "  " + clock_text(seconds(now - started_)), options.width, options.unicode);
  const double share = static_cast<double>(step()) / static_cast<double>(num_steps_);
  return progress_line(left + " of " + std::to_string(num_steps_), share, started_, left_s(), options, now);
}

std::string RunView::figures(const FrameOptions& options) const {
  std::string line;
  if (steps_.empty()) {
    if (accuracy_before_) add_figure(line, "accuracy before " + percent(*accuracy_before_), options.width);
    return line;
  }
  std::vector<double> shown;
  const StepMetrics& last = steps_.back();
  const char* drawn_metric = last.values.contains("reward_mean") ? "reward_mean" : "loss";
  for (const StepMetrics& step : steps_) shown.push_back(value_of(step, drawn_metric));
  const auto add = [&](const char* label, const char* metric, const char* unit) {
    const double value = value_of(last, metric);
    if (std::isfinite(value)) add_figure(line, std::string(label) + format_number(value) + unit, options.width);
  };
  add("reward ", "reward_mean", "");
  if (line.empty()) add("loss ", "loss", "");
  const std::string curve = sparkline(shown, std::clamp(options.width - 60, 10, 40), options.unicode);
  const bool drawn = columns_of(line) + 3 + columns_of(curve) <= options.width;
  const std::size_t curve_at = line.size();
  if (drawn) add_figure(line, curve, options.width);
  add("kl ", "kl", "");
  add("length ", "response_length_mean", "");
  if (last.values.contains("tokens_per_s_generate"))
    add("", "tokens_per_s_generate", " tokens/s");
  else
    add("", "tokens_per_s_train", " tokens/s");
  if (accuracy_before_) add_figure(line, "accuracy before " + percent(*accuracy_before_), options.width);
  // Coloured last: escape sequences take no columns, and add_figure counts columns.
  if (drawn && options.colour && !curve.empty())
    line.replace(curve_at + 3, curve.size(), coloured(curve, "32", options));
  return line;
}

std::string RunView::node_line(const std::string& name, const NodeView& node, int name_width,
                               const FrameOptions& options, ViewTime now) const {
  const bool known = !node.status.phase.empty();
  const double for_s = known ? seconds(now - node.phase_since) : 0;
  char time[32] = "";
  if (known) std::snprintf(time, sizeof(time), for_s < 99.95 ? "%5.1f s" : "%5.0f s", for_s);
  const std::string phase = known ? node.status.phase : "not started";
  std::string text =
      padded(name, name_width) + "  " + padded(fit(phase, 12, options.unicode), 12) + " " + padded(time, 8) + " ";
  if (node.restarts > 0) text += "[restarts " + std::to_string(node.restarts) + "] ";
  text = fit(text + node.status.detail, options.width, options.unicode);
  if (node.restarts > 0 && for_s < 10) return coloured(text, "33", options);
  return phase == "idle" || phase.starts_with("waiting") || !known ? coloured(text, "2", options) : text;
}

std::vector<std::string> RunView::frame(const FrameOptions& options, ViewTime now) const {
  std::vector<std::string> lines{header(options), progress(options, now), figures(options)};
  if (lines.back().empty()) lines.pop_back();
  int name_width = 0;
  for (const std::string& name : order_) name_width = std::max(name_width, columns_of(name));
  name_width = std::min(name_width, 20);
  const std::size_t room = static_cast<std::size_t>(std::max(options.height - 1, 1));
  for (std::size_t i = 0; i < order_.size(); ++i) {
    if (lines.size() + 1 == room && i + 1 < order_.size()) {
      lines.push_back(fit("and " + std::to_string(order_.size() - i) + " more", options.width, options.unicode));
      break;
    }
    const auto node = nodes_.find(order_[i]);
    lines.push_back(node_line(order_[i], node == nodes_.end() ? NodeView{} : node->second, name_width, options, now));
  }
  if (lines.size() > room) lines.resize(room);
  return lines;
}

std::string RunView::step_line(const StepMetrics& step) const {
  std::string line = "step " + std::to_string(step.step);
  if (num_steps_ > 0) line += "/" + std::to_string(num_steps_);
  const auto add = [&](const char* label, const char* metric, const char* unit) {
    const double value = value_of(step, metric);
    if (std::isfinite(value)) line += std::string("  ") + label + format_number(value) + unit;
  };
  add("reward ", "reward_mean", "");
  add("kl ", "kl", "");
  add("loss ", "loss", "");
  add("length ", "response_length_mean", "");
  add("margin ", "margin", "");
  if (step.values.contains("tokens_per_s_generate"))
    add("", "tokens_per_s_generate", " tokens/s");
  else
    add("", "tokens_per_s_train", " tokens/s");
  add("", "seconds_step", " s");
  add("accuracy ", "accuracy", "");
  if (const auto remaining = left_s()) line += "  left " + clock_text(*remaining);
  return line;
}

std::optional<std::string> RunView::preparing_line() {
  if (!preparing_) return std::nullopt;
  const int tenths = static_cast<int>(preparing_->share * 10);
  if (tenths <= preparing_->tenths_told) return std::nullopt;
  preparing_->tenths_told = tenths;
  return preparing_->what + ": " + std::to_string(10 * tenths) + " %";
}

std::vector<std::string> RunView::phase_lines() {
  std::vector<std::string> lines;
  for (const std::string& name : order_) {
    const auto found = nodes_.find(name);
    if (found == nodes_.end()) continue;
    NodeView& node = found->second;
    // Before the first step: what takes long, and that it moves. After it only what holds the run up.
    if (node.phase_told == node.status.phase) continue;
    node.phase_told = node.status.phase;
    if (!steps_.empty() && node.status.phase != "disk_full") continue;
    if (node.status.phase.empty() || node.status.phase == "idle" || node.status.phase.starts_with("waiting")) continue;
    lines.push_back(name + ": " + node.status.phase +
                    (node.status.detail.empty() ? "" : " (" + fit(node.status.detail, 120, true) + ")"));
  }
  return lines;
}

}  // namespace troupe
