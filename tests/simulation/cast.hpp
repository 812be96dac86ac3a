// The roles of a simulated run. What they decide is real: the conductor, the policy of the supervisor, the exchanges,
// the journal and the checkpoints are the program's own. What they compute is not: a model's weights are one number,
// and every token, score and update is a hash of what it depends on, so that a lost, doubled or mixed-up input shows in
// the final weights.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "actors/runner.hpp"
#include "roles/conductor_config.hpp"
#include "roles/learner_progress.hpp"
#include "roles/setting.hpp"
#include "world.hpp"

namespace troupe::simulation {

uint64_t mix(uint64_t a, uint64_t b);

// What an observer of the whole world notes; a violation ends the simulation.
struct Observed {
  std::map<uint64_t, uint64_t> batches;  // step -> hash of the batch a learner applied
  uint64_t applied = 0;                  // highest step any learner applied
  std::map<uint64_t, uint64_t> weights;  // version -> content
  std::vector<std::string> violations;
  uint64_t reported = 0;  // steps whose metrics were told
  uint64_t checkpoints = 0, resumed_from_checkpoint = 0;
};

// Its rules are the real learner's.
class SimulatedLearner {
 public:
  using Face = LearnerFace;
  SimulatedLearner(World& world, Process& process, const RoleSetting& setting, Observed& observed);
  Updated handle(const Update& m);
  AnswerLogProbs handle(const LogProbs& m);
  LearnerState handle(const AskState& m);
  PublishedWeights handle(const PublishWeights& m);
  WeightChunk handle(const FetchChunk& m);
  Checkpointed handle(const Checkpoint& m);

 private:
  Updated answer_of(uint64_t step) const;
  World& world_;
  Process& process_;
  const std::string run_;
  Observed& observed_;
  uint64_t weights_ = 1;
  LearnerProgress progress_;
};

// The conductor's run: its control loop is the real one.
void direct(World& world, const RoleSetting& setting, const ConductorConfig& config, Context& context,
            Observed& observed);

class SimulatedActor {
 public:
  using Face = ActorFace;
  SimulatedActor(World& world, Process& process) : world_(world), process_(process) {}
  void handle(const Generate& m, Responder<Generate> responder);
  Ack handle(const CancelGenerate& m);
  WeightsTaken handle(const TakeWeights& m);
  bool work();

 private:
  struct Answering {
    Generate request;
    Responder<Generate> responder;
    std::vector<int32_t> tokens, versions;  // position by position, all samples
  };
  World& world_;
  Process& process_;
  uint64_t version_ = 0, weights_ = 1;
  std::map<uint64_t, Answering> answering_;  // by draw
};

class SimulatedReference {
 public:
  using Face = ReferenceFace;
  explicit SimulatedReference(Process& process) : process_(process) {}
  AnswerLogProbs handle(const LogProbs& m);

 private:
  Process& process_;
};

class SimulatedReward {
 public:
  using Face = RewardFace;
  explicit SimulatedReward(Process& process) : process_(process) {}
  Scores handle(const Score& m);

 private:
  Process& process_;
};

}  // namespace troupe::simulation
