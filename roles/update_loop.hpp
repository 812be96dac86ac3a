// The second of the conductor's two loops: journalled batches through the learner, what it publishes into the actors.
//   learner: Update -> PublishWeights (-> Checkpoint)   one ask at a time, in the journal's order
//   actors:  TakeWeights                                the version after the one they hold
// The two halves move on their own: the learner may be ahead of the actors by as many versions as steps are journalled
// ahead (max_staleness K; with K = 0 they alternate).
//
// What may still be needed: with the journal ending at step j, step j + 1 is rolled with version j - K. From that
// version on the learner keeps what it publishes, and no step beyond it is checkpointed. So whoever dies, the newest
// checkpoint and the journal lead back to it. (Beyond it all the same is the last checkpoint of a run that is resumed
// for more steps, and any where K was raised: then the next step is rolled with the oldest version there is.) A learner
// that was replaced is asked how far it is and is fed from there, as after a start.
//
// Single-threaded; pump() never waits.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/handle.hpp"
#include "core/metrics/metrics_log.hpp"
#include "roles/conductor_config.hpp"
#include "roles/run_journal.hpp"
#include "roles/topology.hpp"

namespace troupe {

// "f32" or "bf16": what every actor computes in, as all of them take one publication. Throws
// std::invalid_argument where they differ.
std::string dtype_of_actors(const Topology& topology);

class UpdateLoop {
 public:
  UpdateLoop(const Topology& topology, const ConductorConfig& config, const std::filesystem::path& run_folder,
             Context& context, Handle<LearnerFace> learner, std::vector<Handle<ActorFace>> actors, RunJournal& journal);

  // After a start, before anything else; waits. Brings every actor to the version that the first step without a record
  // is rolled with. Steps after `reported` get the metrics that the learner remembers of them.
  void recover(uint64_t reported);

  // Moves what can move: the learner towards step `goal` (at most the journal's end), and, where `may_take`, the actors
  // to their next version. Throws RemoteFailure when a repair was tried too often.
  void pump(uint64_t goal, bool may_take);

  uint64_t begun() const { return begun_; }      // newest step whose update was ever asked for
  uint64_t applied() const { return applied_; }  // steps in the learner's weights, as last heard
  uint64_t held() const { return held_; }        // version that every actor holds
  bool idle() const { return stage_ == Stage::kIdle; }
  // What is known of a step whose update is done, steps in order; empty when it was done before this object's time.
  MetricValues take_metrics(uint64_t step);

  // Gives actor i the held version again; waits. Throws RemoteFailure when that fails again and again.
  void bring_up_to_date(std::size_t actor);
  // Of step `begun()`; waits. `export_folder` not empty: also a Hugging Face folder.
  Checkpointed checkpoint(const std::string& export_folder);

  void add_slots(std::vector<std::shared_ptr<AnswerSlot>>& out) const;
  std::string progress() const;  // "" while the learner has nothing to do

 private:
  enum class Stage { kIdle, kState, kUpdating, kPublishing, kCheckpointing };  // what the learner was asked for
  struct Take {
    Pending<WeightsTaken> asked;
    bool done = false;
    WeightsTaken taken;
    int failures = 0;
  };
  AskOptions options(const std::string& what) const { return {.deadline = deadline_, .what = what}; }
  uint64_t lowest_needed() const;  // version

  void pump_learner();
  void take_answer();
  void begin_next();
  void begin(Stage stage);
  void ask_state();
  void ask_update(uint64_t step);
  void ask_publish(uint64_t version);
  void ask_checkpoint(const std::string& export_folder);
  void take_state(const LearnerState& state);
  void take_update(const Updated& updated);
  void take_publication(const PublishedWeights& published);
  void remember_metrics();
  void pump_takes(bool may_begin);
  void wait_for_learner();
  void add_learner_slots(std::vector<std::shared_ptr<AnswerSlot>>& out) const;

  const Topology& topology_;
  const ConductorConfig config_;
  const std::string run_folder_;
  Context& context_;
  Handle<LearnerFace> learner_;
  std::vector<Handle<ActorFace>> actors_;
  RunJournal& journal_;
  const std::string dtype_;  // what the actors compute in
  const Millis deadline_;

  Stage stage_ = Stage::kIdle;
  Instant stage_began_{};
  Pending<LearnerState> state_;
  Pending<Updated> updating_;
  Pending<PublishedWeights> publishing_;
  Pending<Checkpointed> checkpointing_;
  uint64_t applied_ = 0, begun_ = 0, goal_ = 0;
  uint64_t oldest_ = 0;                           // version that the learner said it can give
  uint64_t checkpointed_ = 0;                     // the newest step known to have a checkpoint
  uint64_t publishing_version_ = 0;               // while kPublishing
  int setbacks_ = 0;                              // times in a row that the learner turned out to be behind
  std::map<uint64_t, WeightManifest> manifests_;  // what the learner is known to keep
  std::map<uint64_t, MetricValues> metrics_;      // of steps that are applied and not yet told
  uint64_t told_ = 0;                             // steps whose metrics were taken
  std::optional<std::string> last_export_;        // the last checkpoint is wanted; where to export to
  std::optional<Checkpointed> last_checkpoint_;

  uint64_t held_ = 0;
  uint64_t taking_ = 0;      // version
  std::vector<Take> takes_;  // of it; empty: none under way
  Instant takes_began_{};
};

}  // namespace troupe
