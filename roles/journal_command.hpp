// `troupe journal`: what a run's journal holds, whether it is whole, and its samples as JSON lines.
#pragma once

#include <filesystem>
#include <optional>

namespace troupe {

struct JournalChoice {
  std::filesystem::path run;
  std::optional<std::filesystem::path> export_to;  // JSON lines, one a sample
  bool tokens = false;                             // the export holds ids and log-probabilities as well
  bool check = false;                              // the whole ledger (roles/ledger.hpp), not the journal alone
};

// Prints a summary, then a line for everything that is wrong; 1 when there is any. Throws for files that can't be read
// or written.
int journal_command(const JournalChoice& choice);

}  // namespace troupe
