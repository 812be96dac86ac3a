// The books of a run, audited: what its files must show after any faults. Reads RUN/journal, checkpoints, metrics.jsonl
// and topology.json; changes nothing; a run may be at work meanwhile (its last step may then be half in the files).
//
// What is checked, and the invariant of docs/reliability.md that it belongs to:
//   every sample (draw, index) in exactly one step, every group whole, and after the last step of a synchronous run no
//   draw left out (I1); steps 1, 2, 3 ... without gap in the journal and in metrics.jsonl, none beyond the journal
//   (I3); every record and every checkpoint reads back, and a checkpoint's offset is the end of its step's record (I5);
//   no token older than the staleness bound or younger than its step; a checkpoint is of this run, and of the course
//   that metrics.jsonl tells of: a second writer would show here (I2, I4).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace troupe {

struct Ledger {
  uint64_t steps = 0;
  uint64_t draws = 0;
  uint64_t samples = 0;
  uint64_t left_out = 0;  // samples recorded but not trained on
  uint64_t answer_tokens = 0;
  uint64_t prompt_tokens = 0;
  int64_t oldest_version = 0, newest_version = 0;  // that sampled a token
  int64_t staleness = 0;                           // of the stalest token
  uint64_t bytes = 0;                              // of whole records
  uint64_t torn_bytes = 0;                         // behind the last whole record
  std::vector<std::string> checkpoints;            // names of the folders
  std::vector<std::string> violations;             // one line each; empty: all is well
};

// The journal alone, and that checkpoints point at its records.
Ledger read_ledger(const std::filesystem::path& run_folder);
// Everything.
Ledger check_ledger(const std::filesystem::path& run_folder);

}  // namespace troupe
