#include "core/metrics/summary.hpp"

#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "core/io/disk.hpp"

namespace troupe {
namespace {

std::filesystem::path summary_file(const std::filesystem::path& run_folder) {
  return run_folder / "summary.json";
}

}  // namespace

nlohmann::json read_summary(const std::filesystem::path& run_folder) {
  const std::filesystem::path file = summary_file(run_folder);
  std::ifstream in(file, std::ios::binary);
  if (!in) return nlohmann::json::object();
  nlohmann::json summary = nlohmann::json::parse(in, nullptr, /*allow_exceptions=*/false);
  if (!summary.is_object()) throw std::runtime_error(file.string() + ": expected a JSON object");
  return summary;
}

void merge_summary(const std::filesystem::path& run_folder, const nlohmann::json& values) {
  if (!values.is_object()) throw std::invalid_argument("merge_summary: expected an object");
  nlohmann::json summary = read_summary(run_folder);
  summary.merge_patch(values);
  write_file_atomically(real_disk(), summary_file(run_folder), summary.dump(2) + "\n");
}

}  // namespace troupe
