// The second of the conductor's two loops: from a step's batch to the next policy version in every actor.
//   journal (synced) -> learner: Update -> learner: PublishWeights -> actors: TakeWeights
//
// Knows how to bring a learner that was replaced back to where the run is (it loads its checkpoint and is fed the
// journalled steps since), and an actor to the current version. Single-threaded; pump() waits only for such a repair.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/handle.hpp"
#include "core/metrics/metrics_log.hpp"
#include "roles/run_journal.hpp"
#include "roles/topology.hpp"

namespace troupe {

class UpdateLoop {
 public:
  UpdateLoop(const Topology& topology, const std::filesystem::path& run_folder, Context& context,
             Handle<LearnerFace> learner, std::vector<Handle<ActorFace>> actors, RunJournal& journal);

  // Brings learner and actors to the journal's last step: after a start, a resume, a restart of the conductor. Returns
  // the learner's answer to the last step's update, if there is one.
  std::optional<Updated> recover();

  // Journals the batch and asks for its update. Only when !busy().
  void start(const Experience& batch);
  bool busy() const { return stage_ != Stage::kIdle; }
  void pump();
  // The finished step's metrics, once.
  std::optional<MetricValues> take_finished();

  // Steps whose weights every actor holds.
  uint64_t published_version() const { return published_; }
  // Gives actor i the published version again. Throws RemoteFailure when that cannot be done within the ask deadline.
  void bring_up_to_date(std::size_t actor);
  // Waits. `export_folder` not empty: also a Hugging Face folder.
  Checkpointed checkpoint(const std::string& export_folder);

  void add_slots(std::vector<std::shared_ptr<AnswerSlot>>& out) const;
  std::string progress() const;

 private:
  enum class Stage { kIdle, kUpdating, kPublishing, kTaking };
  AskOptions options(const std::string& what) const { return {.deadline = deadline_, .what = what}; }
  Update update_of(const Experience& batch) const;
  PublishWeights publish_of(uint64_t version) const;
  void feed_learner();
  void publish_and_wait();
  void after_update(const Updated& updated);
  // Runs `stage`; when the learner turns out to be a new incarnation that is behind, feeds it first and asks again.
  double seconds_since(Instant from) const;
  template <class Reply, class Again>
  std::optional<Reply> answer_of(Pending<Reply>& pending, Again again);

  const Topology& topology_;
  const std::string run_folder_;
  Context& context_;
  Handle<LearnerFace> learner_;
  std::vector<Handle<ActorFace>> actors_;
  RunJournal& journal_;
  const std::string dtype_;  // what the actors compute in
  const Millis deadline_;

  Stage stage_ = Stage::kIdle;
  Instant stage_began_{};
  uint64_t published_ = 0;
  std::optional<WeightManifest> manifest_;  // none while every actor has the base model
  Pending<Updated> updating_;
  Pending<PublishedWeights> publishing_;
  std::vector<Pending<Ack>> taking_;
  std::optional<MetricValues> metrics_;  // of the step under way
  std::optional<MetricValues> finished_;
};

}  // namespace troupe
