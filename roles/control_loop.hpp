// The control plane of a run: opens steps, journals their batches, has the learner apply them and the actors take what
// it publishes. Owns the journal and both loops: roll (roll_loop.hpp) makes the batch of a step, update
// (update_loop.hpp) trains on it.
//
// With max_staleness K, step s is rolled once every actor holds version s - 1 - K (or 0): with K = 0 roll and update
// alternate, above it the actors generate while the learner trains. A deterministic run keeps a schedule that no timing
// has a part in: the actors generate step v + 1 + K with version v, all of it, and only then take version v + 1. In a
// free-running one they take it as soon as it is there, between two decode steps of answers under way.
//
// Everything it knows of the world comes through the Context (letters, time) and the Disk, so that it runs the same in
// a simulator. Made again after a death it goes on from the journal: a step is journalled as soon as its batch is
// complete and before its update is asked for, an update is applied once, and every random number follows from the
// run's seed and the draw. So no prompt is lost or trained twice, whoever dies.
// Single-threaded.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "roles/conductor_config.hpp"
#include "roles/roll_loop.hpp"
#include "roles/run_journal.hpp"
#include "roles/update_loop.hpp"

namespace troupe {

class ControlLoop {
 public:
  // Told once a step, in order: it is trained on, and every actor holds its version (but for the last steps of a run
  // that is stopped). May ask the actors (an evaluation), not this object's recover() or train().
  using StepEnded = std::function<void(uint64_t step, MetricValues metrics)>;

  // `topology` is kept by reference. Throws std::invalid_argument for a topology without a needed role, and as
  // RunJournal does.
  ControlLoop(const Topology& topology, const ConductorConfig& config, std::vector<TokenizedPrompt> prompts,
              Context& context, Disk& disk, const std::filesystem::path& run_folder, StepEnded step_ended);

  // Before anything else: brings learner and actors to where the first step without a record can be rolled. Steps after
  // `reported` that have ended already are told again, with what the journal and the learner still know of them.
  void recover(uint64_t reported);
  // Until the last step has ended; or the node is told to stop, the update in work has ended, and the journal reaches
  // as far as a checkpoint of it needs.
  void train();

  uint64_t ended() const { return ended_; }         // steps
  uint64_t held() const { return update_.held(); }  // version that every actor holds
  bool done() const { return ended_ == num_steps(); }
  // Of step ended(), after train(). `export_folder` not empty: also a Hugging Face folder of the policy.
  Checkpointed checkpoint(const std::string& export_folder) { return update_.checkpoint(export_folder); }
  // For asking the actors beside the steps, with version held().
  Generation generation();

 private:
  // What is journalled is trained on, also where a resumed run was given fewer steps.
  uint64_t num_steps() const { return std::max(static_cast<uint64_t>(*config_.steps), journal_.last_step()); }
  uint64_t staleness() const { return static_cast<uint64_t>(config_.max_staleness); }
  uint64_t last_to_roll() const;
  bool finished() const;
  void notice_stop();
  void open_steps();
  void journal_batches();
  bool may_take() const;
  bool end_steps(uint64_t up_to);
  void wait();

  const ConductorConfig config_;
  const bool deterministic_;
  Context& context_;
  const std::vector<Handle<ActorFace>> actors_;
  const Millis deadline_;
  RunJournal journal_;
  UpdateLoop update_;
  RollLoop roll_;
  const StepEnded step_ended_;

  uint64_t next_ = 1;  // step to be opened
  uint64_t ended_ = 0;
  std::optional<uint64_t> stop_at_;          // told to stop: the last step to be trained on
  std::map<uint64_t, MetricValues> rolled_;  // of journalled steps that have not ended
  std::map<uint64_t, Instant> opened_;       // of the same, and of open ones
  Instant last_ended_{};
};

}  // namespace troupe
