// The conductor's journal: one record per step, the batch exactly as trained on, synced before the update is asked for.
// At once the trajectory data set, the replay log and the recovery log. RUN/journal/, see core/io/journal.hpp.
// Single-threaded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <vector>

#include "core/io/journal.hpp"
#include "protocol/types.hpp"

namespace troupe {

inline constexpr uint8_t kExperienceRecord = 1;  // on disk: do not renumber

class RunJournal {
 public:
  // Opens for writing and reads the index of steps. Throws std::runtime_error naming the record when steps are not 1,
  // 2, 3 ... in order.
  RunJournal(Disk& disk, const std::filesystem::path& folder);

  uint64_t last_step() const { return offsets_.size(); }
  // Appends and syncs. The batch's step must be last_step() + 1.
  void append(const Experience& batch);
  Experience read(uint64_t step) const;
  // Where the record after `step` begins: what a checkpoint of that step covers. 0 for step 0.
  uint64_t end_of(uint64_t step) const;

 private:
  Disk& disk_;
  std::filesystem::path folder_;
  Journal journal_;
  std::vector<uint64_t> offsets_;  // of step i + 1's record
};

// The record of a batch.
std::vector<std::byte> experience_payload(const Experience& batch);

// Every record of a journal that somebody else may be writing, in order, and where the last whole one ends. Throws
// std::runtime_error naming segment and offset of what is damaged or is no batch.
JournalEnd visit_experiences(const std::filesystem::path& folder,
                             const std::function<void(uint64_t offset, const Experience& batch)>& visit);
// All of them at once.
std::vector<Experience> read_experiences(const std::filesystem::path& folder);

}  // namespace troupe
