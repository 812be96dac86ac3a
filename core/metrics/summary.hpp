// RUN/summary.json: the few figures that say how a run went (docs/metrics.md lists the keys: accuracy_before,
// accuracy_after, steps, wall_s, ...). Written by several processes of one run, never at the same time.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>

namespace troupe {

// Sets the given keys (an object; null removes a key) and keeps the others. Written aside, synced and renamed.
// Throws std::runtime_error naming the file when it cannot be written or holds no JSON object.
void merge_summary(const std::filesystem::path& run_folder, const nlohmann::json& values);

// The whole object; {} when there is none yet.
nlohmann::json read_summary(const std::filesystem::path& run_folder);

}  // namespace troupe
