// What a job teaches: how a line becomes sequences, and the loss over them. One implementation a job, in a file of its
// own; the loop around it is the trainer's.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/data/training_samples.hpp"
#include "core/train/engine.hpp"
#include "roles/jobs/job_config.hpp"

namespace troupe {

// Some samples as the engine takes them; the sequences of a sample are neighbours.
struct JobBatch {
  PackedBatch packed;
  int64_t samples = 0;
  std::vector<int64_t> scored;  // of each sequence, how many tokens

  int64_t scored_tokens() const { return packed.scored_tokens(); }
};

using Figures = std::map<std::string, double>;  // by the names of docs/metrics.md

// Held-out figures of one batch, and how much it weighs in the mean over all.
struct Evaluated {
  Figures figures;
  double weight = 0;
};

class Objective {
 public:
  virtual ~Objective() = default;
  // Sequences of one line, always as many. Any thread. Throws std::invalid_argument saying what is wrong with the line.
  virtual std::vector<TrainingSample> read(const SampleMaker& maker, std::string_view line) const = 0;
  // Adds the gradient of `scale` times the batch's loss. The batch scores at least one token.
  virtual Figures accumulate(TrainEngine& engine, const JobBatch& batch, double scale) = 0;
  virtual Evaluated evaluate(TrainEngine& engine, const JobBatch& batch) = 0;
};

// Mean cross-entropy of the scored tokens; `tag_tokens`: those weigh tag_weight, the mean is still over their number.
std::unique_ptr<Objective> pretrain_objective();
std::unique_ptr<Objective> conversation_objective();
std::unique_ptr<Objective> reason_objective(std::vector<int32_t> tag_tokens, double tag_weight);
// `reference`: the start weights, frozen. `balances`: experts' load-balancing loss is part of the loss.
std::unique_ptr<Objective> dpo_objective(const DpoJob& job, std::unique_ptr<TrainEngine> reference, bool balances);
std::unique_ptr<Objective> reward_objective(const RewardJob& job);
std::unique_ptr<Objective> distill_objective(const DistillJob& job, std::unique_ptr<TrainEngine> teacher);

// The part of the experts' load-balancing loss that a micro-batch bears: its share of the batch's sequences.
at::Tensor aux_share(const at::Tensor& aux, const MicroBatch& part, const JobBatch& batch);

}  // namespace troupe
