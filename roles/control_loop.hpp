// The control plane of a run: opens steps, journals their batches, has the learner apply them and the actors take what
// it publishes. Owns the journal and both loops: roll (roll_loop.hpp) makes the batch of a step, update
// (update_loop.hpp) trains on it. A synchronous run lets them alternate; max_staleness > 0 lets the next steps be
// rolled while an update runs.
//
// Everything it knows of the world comes through the Context (letters, time) and the Disk, so that it runs the same in
// a simulator. Made again after a death it goes on from the journal: a step is journalled before its update is asked
// for, an update is applied once, and every random number follows from the run's seed and the draw. So no prompt is
// lost or trained twice, whoever dies.
// Single-threaded.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <vector>

#include "roles/conductor_config.hpp"
#include "roles/roll_loop.hpp"
#include "roles/run_journal.hpp"
#include "roles/update_loop.hpp"

namespace troupe {

class ControlLoop {
 public:
  // Told once a step, in order, when every actor holds the weights it made; no answer is under way. May ask the actors
  // (an evaluation), not this object's recover() or train().
  using StepEnded = std::function<void(uint64_t step, MetricValues metrics)>;

  // `topology` is kept by reference. Throws std::invalid_argument for a topology without a needed role, and as
  // RunJournal does.
  ControlLoop(const Topology& topology, const ConductorConfig& config, std::vector<TokenizedPrompt> prompts,
              Context& context, Disk& disk, const std::filesystem::path& run_folder, StepEnded step_ended);

  // Before anything else: brings learner and actors where the journal ends. Steps after `reported` that have ended
  // already are told again, with what the journal and the learner still know of them.
  void recover(uint64_t reported);
  // Until the last step has ended, or the node is told to stop and the step in work has ended.
  void train();

  uint64_t ended() const { return journal_.last_step(); }  // steps: also the version that every actor holds
  bool done() const { return ended() >= static_cast<uint64_t>(*config_.steps); }
  // Waits. `export_folder` not empty: also a Hugging Face folder of the policy.
  Checkpointed checkpoint(const std::string& export_folder) { return update_.checkpoint(export_folder); }
  // For asking the actors beside the steps, with version ended().
  Generation generation();

 private:
  void wait();
  void end_step(MetricValues metrics);

  const ConductorConfig config_;
  Context& context_;
  const std::vector<Handle<ActorFace>> actors_;
  const Millis deadline_;
  RunJournal journal_;
  UpdateLoop update_;
  RollLoop roll_;
  const StepEnded step_ended_;
  MetricValues rolled_;  // of the step whose update is under way
  Instant began_{};      // of that step's roll
};

}  // namespace troupe
