// What a learner, a critic or a reward-model trainer does with a model: forward, backward, update, state.
// One thread at a time. The same calls with the same thread count give the same bits.
//
//   TrainEngine engine(config, state, {.compute = at::kBFloat16, .adamw = {.learning_rate = 1e-6}});
//   at::Tensor old = engine.logprobs(batch, temperature).logprobs;             // no gradient
//   engine.accumulate(batch, temperature, [&](const MicroBatch& part, const TokenOutputs& out) {
//     return grpo_loss(out.logprobs, old.index_select(0, part.tokens_of), ...);  // scalar, divided by the counts of
//     the
//   });                                                                          // whole update, not of the part
//   StepStats stats = engine.apply();
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>

#include "core/models/decoder.hpp"
#include "core/train/adamw.hpp"
#include "core/train/packed_batch.hpp"
#include "core/train/schedule.hpp"
#include "core/train/token_logprobs.hpp"

namespace troupe {

struct TrainConfig {
  at::ScalarType compute = at::kFloat;  // at::kFloat or at::kBFloat16; masters and gradients are float32 always
  std::optional<LoraConfig> lora;       // none: all parameters are trained
  bool frozen = false;                  // reference: forward only, no masters, no gradients, no optimizer
  bool gradient_checkpointing = false;
  bool score_head = false;  // critic, reward model
  AdamWConfig adamw;
  ScheduleConfig schedule;
  int64_t micro_batch_tokens = 1024;  // 0: the whole batch at once
  bool share_prompts = true;          // neighbours with the same prompt compute it once (prompt_sharing.hpp)
  double max_grad_norm = 1.0;         // 0: no clipping
  // Between passes and between updates activations and gradients go back to the system, for the other processes of the
  // host that this one takes turns with. Costs a hundredth of a step: fresh pages.
  bool yields_memory = false;
  // Where the compute copy of what is trained lies, see freeze_compute_weights(); none: in memory of its own.
  MemorySource compute_memory;
  at::Device device = at::kCPU;
  // Ranks among which the optimizer's state is cut; must outlive the engine. Null: all of it is kept here.
  ShardGroup* shards = nullptr;
};

// Of N scored tokens in the order of the batch (or micro-batch); float32.
struct TokenOutputs {
  at::Tensor logprobs;  // [N] log-probability of each scored token at the temperature asked
  at::Tensor entropy;   // [N] of the distribution it was drawn from
  // Experts' load-balancing loss, mean over the sequences of the part; undefined for a dense model or without gradient.
  at::Tensor aux = {};
};

// What scored tokens are predicted from: for losses that need more of a distribution than one token's probability.
struct TokenStates {
  at::Tensor hidden;    // [n, D] compute dtype: after the final norm, what the output projection reads
  at::Tensor targets;   // int64 [n]: the scored tokens
  at::Tensor aux = {};  // as above
};

// Loss of a part, already divided by the counts of the whole update. `out` has gradients.
using LossFn = std::function<at::Tensor(const MicroBatch& part, const TokenOutputs& out)>;
using StatesLossFn = std::function<at::Tensor(const MicroBatch& part, const TokenStates& states)>;
// Likewise over scalars: of each answer token's state (values, [n]) or of each sequence's last token (scores, [b]).
using ScalarLossFn = std::function<at::Tensor(const MicroBatch& part, const at::Tensor& scalars)>;

struct Accumulated {
  double loss = 0.0;     // sum over micro-batches
  TokenOutputs outputs;  // of the whole batch, detached, in its order (scalars: in `logprobs`; none of states)
};

struct StepStats {
  int64_t step = 0;            // updates done, this one included
  double learning_rate = 0.0;  // of this update
  double gradient_norm = 0.0;  // before clipping
  double clip_factor = 1.0;    // min(1, max_grad_norm / (norm + 1e-6))
};

class TrainEngine {
 public:
  // Copies the weights; throws as Decoder does.
  TrainEngine(const DecoderConfig& config, const StateDict& state, const TrainConfig& train);

  // No gradient. The same bits as accumulate() sees with the same weights. `adapter` false: the base model of a LoRA
  // run.
  TokenOutputs logprobs(const PackedBatch& batch, double temperature, bool adapter = true);
  // No gradient: what the scored tokens of one part are predicted from, without splitting it.
  TokenStates states(const PackedBatch& batch);
  // float32 [N]: value of the state each answer token was chosen in (needs a score head).
  at::Tensor values(const PackedBatch& batch);
  // float32 [B]: score of each sequence at its last token (needs a score head).
  at::Tensor scores(const PackedBatch& batch);

  // Forward and backward of every micro-batch; adds into the gradients. Throws std::runtime_error, leaving the
  // gradients as they are at that point, when a loss is not finite.
  Accumulated accumulate(const PackedBatch& batch, double temperature, const LossFn& loss);
  Accumulated accumulate_states(const PackedBatch& batch, const StatesLossFn& loss);
  Accumulated accumulate_values(const PackedBatch& batch, const ScalarLossFn& loss);
  Accumulated accumulate_scores(const PackedBatch& batch, const ScalarLossFn& loss);

  // Clips, steps, zeroes the gradients. A gradient norm that is not finite throws std::runtime_error and changes
  // nothing. `rate_factor`: on the learning rate, in place of the configured schedule's.
  StepStats apply(std::optional<double> rate_factor = std::nullopt);
  void zero_grad();

  int64_t step() const;             // updates done
  int64_t optimizer_bytes() const;  // of the moments kept here, once there are any
  // float32 [P], all gradients in one: what a data-parallel group reduces before apply(). The arena's own.
  at::Tensor gradients();

  // Views of the masters (what training changes: Hugging Face or PEFT names), live: they move with the next apply().
  StateDict weights() const;
  // The same in the compute dtype (bfloat16 copy, or the masters): for publication.
  StateDict compute_weights() const;
  // Compute weights in memory of `compute_memory` stay there as they are; the next update writes them elsewhere.
  void freeze_compute_weights();
  // weights() and "optimizer.m", "optimizer.v" (float32 [P]; absent before the first update), "optimizer.step" (int64
  // [1]). With shards all ranks call it together and rank 0 alone gets the moments, whole: a state does not tell among
  // how many ranks it was cut.
  StateDict state() const;
  // Everything state() gave, on every rank. Throws std::invalid_argument naming what is missing or of another shape.
  void load_state(const StateDict& state);

  Decoder& model() { return model_; }
  const TrainConfig& config() const { return train_; }

 private:
  enum class Scalars { kValues, kScores };
  at::Tensor scalars(const PackedBatch& batch, Scalars which);
  Accumulated accumulate_scalars(const PackedBatch& batch, Scalars which, const ScalarLossFn& loss);
  // Goes backward from what `loss_of` gives for each micro-batch (undefined: nothing); their sum.
  double for_each_part(const PackedBatch& batch, const std::function<at::Tensor(const MicroBatch& part)>& loss_of);
  void yield_activations();

  TrainConfig train_;
  Decoder model_;
  WorkspacePool logit_memory_;
  std::optional<AdamW> adamw_;
};

}  // namespace troupe
