// Owns the prompts, the step counter and the journal; asks the other roles in turn. Two loops: roll (roll_loop.hpp)
// makes the batch of a step, update (update_loop.hpp) trains on it and brings the new weights to the actors. A
// synchronous run lets them alternate; max_staleness > 0 lets the next steps be rolled while an update runs.
//
// Started again (by the supervisor, or by `troupe resume`) it goes on from the journal: a step is journalled before its
// update is asked for, an update is applied once, and every random number follows from the run's seed and the draw. So
// no prompt is lost or trained twice, whoever dies.
// Single-threaded: the runner calls run().
#pragma once

#include <optional>

#include "core/metrics/run_metrics.hpp"
#include "roles/conductor_config.hpp"
#include "roles/evaluation.hpp"
#include "roles/roll_loop.hpp"
#include "roles/run_journal.hpp"
#include "roles/update_loop.hpp"

namespace troupe {

class Conductor {
 public:
  using Config = ConductorConfig;

  Conductor(const RoleSetting& setting, Context& context);
  void run(Context& context);

 private:
  void recover();
  void train();
  void wait();
  void end_step(MetricValues metrics);
  void evaluate(const std::string& key);
  void finish();
  uint64_t steps() const { return static_cast<uint64_t>(*config_.steps); }

  const Config config_;
  const RoleSetting setting_;
  Context& context_;
  const Tokenizer tokenizer_;
  const std::vector<Handle<ActorFace>> actors_;
  RunJournal journal_;
  UpdateLoop update_;
  RollLoop roll_;
  std::optional<Evaluation> evaluation_;
  std::optional<RunMetrics> metrics_;
  MetricValues rolled_;  // of the step whose update is under way
  Instant began_{};      // of that step's roll
};

}  // namespace troupe
