#include "core/metrics/metrics_log.hpp"

#include <cerrno>
#include <chrono>
#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "core/io/disk.hpp"

namespace troupe {
namespace {

using nlohmann::json;

double monotonic_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

[[noreturn]] void bad_line(const std::filesystem::path& file, uint64_t line, const std::string& why) {
  throw std::runtime_error(file.string() + ":" + std::to_string(line) + ": " + why);
}

StepMetrics parse_line(const std::filesystem::path& file, uint64_t line, const std::string& text) {
  const json object = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) bad_line(file, line, "expected one JSON object per line");
  const auto step = object.find("step");
  if (step == object.end() || !step->is_number_unsigned()) bad_line(file, line, "expected \"step\", a whole number");
  StepMetrics metrics{step->get<uint64_t>(), {}};
  for (const auto& [key, value] : object.items()) {
    if (key == "step") continue;
    if (!value.is_number() && !value.is_null()) bad_line(file, line, "\"" + key + "\": expected a number or null");
    metrics.values[key] = value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
  }
  return metrics;
}

// Reads complete lines from `offset_bytes` on and moves it behind the last newline; a torn last line stays.
template <class OnLine>
void for_each_complete_line(std::ifstream& in, uint64_t& offset_bytes, OnLine on_line) {
  in.seekg(static_cast<std::streamoff>(offset_bytes));
  std::string text;
  while (std::getline(in, text) && !in.eof()) {
    on_line(text);
    offset_bytes += text.size() + 1;
  }
}

}  // namespace

MetricsLog::MetricsLog(std::filesystem::path file, uint64_t last_step)
    : file_(std::move(file)), last_step_(last_step), opened_at_s_(monotonic_s()) {
  uint64_t kept_bytes = 0, read_bytes = 0, line = 0;
  bool cut = false;
  if (std::ifstream in(file_, std::ios::binary); in) {
    for_each_complete_line(in, read_bytes, [&](const std::string& text) {
      const StepMetrics metrics = parse_line(file_, ++line, text);
      cut = cut || metrics.step > last_step;
      if (cut) return;
      kept_bytes += text.size() + 1;
      if (const auto time = metrics.values.find("time_s"); time != metrics.values.end()) time_before_s_ = time->second;
    });
  }
  std::error_code error;
  if (std::filesystem::exists(file_)) std::filesystem::resize_file(file_, kept_bytes, error);
  if (error) throw std::runtime_error("cannot cut " + file_.string() + ": " + error.message());
  out_.reset(std::fopen(file_.c_str(), "ae"));
  if (!out_) throw DiskError("open", file_, errno);
}

void MetricsLog::write(uint64_t step, const MetricValues& values) {
  if (step <= last_step_)
    throw std::invalid_argument(file_.string() + ": step " + std::to_string(step) + " does not follow step " +
                                std::to_string(last_step_));
  json object{{"step", step}, {"time_s", time_before_s_ + (monotonic_s() - opened_at_s_)}};
  for (const auto& [name, value] : values)
    if (name != "step") object[name] = std::isfinite(value) ? json(value) : json(nullptr);
  const std::string text = object.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
  if (std::fwrite(text.data(), 1, text.size(), out_.get()) != text.size() || std::fflush(out_.get()) != 0)
    throw DiskError("write", file_, errno);
  last_step_ = step;
}

std::vector<StepMetrics> MetricsTail::take_new() {
  std::vector<StepMetrics> found;
  std::ifstream in(file_, std::ios::binary | std::ios::ate);
  if (!in) return found;
  if (static_cast<uint64_t>(in.tellg()) < offset_bytes_) offset_bytes_ = line_ = 0;
  for_each_complete_line(in, offset_bytes_, [&](const std::string& text) {
    StepMetrics metrics = parse_line(file_, ++line_, text);
    if (metrics.step <= last_step_) return;
    last_step_ = metrics.step;
    found.push_back(std::move(metrics));
  });
  return found;
}

bool cut_damaged_metrics(const std::filesystem::path& file) {
  uint64_t whole_bytes = 0, line = 0;
  {
    std::ifstream in(file, std::ios::binary);
    if (!in) return false;
    try {
      for_each_complete_line(in, whole_bytes, [&](const std::string& text) { parse_line(file, ++line, text); });
      return false;
    } catch (const std::runtime_error&) {
    }
  }
  std::filesystem::resize_file(file, whole_bytes);
  return true;
}

std::vector<StepMetrics> read_metrics(const std::filesystem::path& file) {
  if (!std::filesystem::exists(file)) throw std::runtime_error("no metrics at " + file.string());
  return MetricsTail(file).take_new();
}

}  // namespace troupe
