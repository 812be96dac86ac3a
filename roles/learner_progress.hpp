// Where a learner stands and what follows from it, apart from what it computes: which update is the next one, what it
// answered to earlier ones, which versions it keeps, and when it is behind what it is asked for. Updates are applied
// once and in order by these rules, however often they are asked for and by whomever. Knows no tensors and no files:
// the simulated learner plays by the same rules. Single-threaded.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "protocol/messages.hpp"

namespace troupe {

class LearnerProgress {
 public:
  explicit LearnerProgress(std::string node) : node_(std::move(node)) {}

  uint64_t step() const { return step_; }                      // batches applied
  uint64_t journal_offset() const { return journal_offset_; }  // end of the record that the newest checkpoint covers
  const std::map<uint64_t, Updated>& answers() const { return answers_; }  // to the newest updates, by step
  LearnerState state() const;

  // The state of a checkpoint or of another learner was taken on, or, as it is by default, that of the base model.
  void begin_at(uint64_t step, uint64_t journal_offset, std::map<uint64_t, Updated> answers);

  // What was answered when this update was applied, one of the newest; null: it is the next one, to be applied. Throws
  // RemoteFailure kBehind for any other, and where a version that the asker still needs is not kept.
  const Updated* earlier_answer(const Update& m) const;
  void applied(const Updated& next);
  void checkpointed(uint64_t journal_offset) { journal_offset_ = journal_offset; }

  // Published versions. Their memory is the owner's to free.
  const WeightManifest* kept(uint64_t version) const;  // null: it is not
  const WeightManifest& keep(const WeightManifest& manifest) { return kept_[manifest.version] = manifest; }
  std::vector<WeightManifest> drop_below(uint64_t version);  // those that are kept no longer

  // Throws RemoteFailure kBehind unless it stands at `step`. `what` was asked for.
  void need_step(uint64_t step, const std::string& what) const;
  [[noreturn]] void fail_behind(const std::string& what) const;

 private:
  const std::string node_;
  uint64_t step_ = 0, journal_offset_ = 0;
  std::map<uint64_t, Updated> answers_;
  std::map<uint64_t, WeightManifest> kept_;
};

}  // namespace troupe
