// Training checkpoints: FOLDER/step-000123/ with one safetensors file per part and manifest.json, which holds the size
// and the CRC-32C of every 4 MiB of every file, and a digest of itself. Written as step-000123.tmp, every file synced,
// the manifest last, then renamed, then the folder synced: a step-NNNNNN folder is whole or damaged, never half-done.
// One writer per folder. Errors: DiskError when writing, std::runtime_error naming file and chunk when reading.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/io/disk.hpp"
#include "core/models/state_dict.hpp"

namespace troupe {

struct CheckpointMeta {
  std::string run;
  uint64_t epoch = 0;
  uint64_t step = 0;
  uint64_t journal_offset = 0;  // end of the last applied step's record
  std::string extra;            // what else belongs to the set (random state, schedule), opaque
};

using CheckpointParts = std::map<std::string, StateDict>;  // "policy", "optimizer", ...; names [a-z0-9_]+

// Returns the folder made. Older checkpoints beyond the newest `keep` go, after the new one was read back and verified.
// When it throws (disk full), the earlier checkpoints are as they were.
std::filesystem::path write_checkpoint(Disk& disk, const std::filesystem::path& folder, const CheckpointMeta& meta,
                                       const CheckpointParts& parts, int keep = 3);

struct LoadedCheckpoint {
  CheckpointMeta meta;
  CheckpointParts parts;  // in memory of their own
  std::filesystem::path folder;
  std::vector<std::string> rejected;  // newer ones that are damaged: folder, file, chunk, one line each
};

// One checkpoint, every chunk verified.
LoadedCheckpoint load_checkpoint(Disk& disk, const std::filesystem::path& step_folder);

// The newest that verifies, of `run` (empty: any). None when there is no checkpoint at all. Throws when there are some
// and none is valid: a run never starts from scratch by accident.
std::optional<LoadedCheckpoint> load_newest_checkpoint(Disk& disk, const std::filesystem::path& folder,
                                                       const std::string& run = "");

// Step folders present, oldest first; not verified.
std::vector<std::filesystem::path> list_checkpoints(Disk& disk, const std::filesystem::path& folder);

}  // namespace troupe
