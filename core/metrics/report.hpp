// RUN/report.html: the curves of a run in one self-contained page (inline SVG, no network), light and dark.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "core/metrics/metrics_log.hpp"

namespace troupe {

// Draws the page from RUN/metrics.jsonl, and, where they are there, summary.json, topology.json and run.json.
// Throws std::runtime_error when metrics.jsonl is missing or broken.
void write_report(const std::filesystem::path& run_folder);

// The page's text. `summary`, `topology` and `run` are objects, empty where unknown.
std::string render_report(const std::string& title, const std::vector<StepMetrics>& steps,
                          const nlohmann::json& summary, const nlohmann::json& topology, const nlohmann::json& run);

}  // namespace troupe
