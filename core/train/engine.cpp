#include "core/train/engine.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <cmath>
#include <stdexcept>
#include <string>

#include "core/train/prompt_sharing.hpp"

namespace troupe {
namespace {

DecoderOptions decoder_options(const TrainConfig& train) {
  DecoderOptions options;
  options.compute = train.compute;
  options.training = train.frozen ? Training::kFrozen : train.lora ? Training::kLora : Training::kFull;
  if (train.lora) options.lora = *train.lora;
  options.gradient_checkpointing = train.gradient_checkpointing;
  options.score_head = train.score_head;
  options.device = train.device;
  return options;
}

// Dynamic RoPE looks at a sequence's length, which an answer apart from its prompt does not have.
bool may_share(const Decoder& model, const TrainConfig& train) {
  return train.share_prompts && model.config().rope.type != "dynamic";
}

// Hidden states of the wanted rows, [N, D], and the experts' auxiliary loss of the pass.
HiddenStates states_of(const Decoder& model, const PackedPrompts& laid, const DistinctRows& wanted, bool adapter) {
  const at::Device device = model.options().device;
  HiddenStates states = model.hidden_and_aux(laid.packed, wanted.rows.to(device), adapter);
  if (wanted.which.defined()) states.hidden = states.hidden.index_select(0, wanted.which.to(device));
  return states;
}

// The scored tokens, int64 [N].
at::Tensor scored_tokens(const PackedBatch& batch) {
  std::vector<at::Tensor> pieces;
  int64_t begin = 0;
  for (size_t i = 0; i < batch.prompt_lengths.size(); ++i) {
    pieces.push_back(batch.tokens.narrow(0, begin + batch.prompt_lengths[i], batch.response_lengths[i]));
    begin += batch.prompt_lengths[i] + batch.response_lengths[i];
  }
  const at::Tensor answers = at::cat(pieces);
  if (batch.scored.empty()) return answers;
  std::vector<int64_t> places;
  for (size_t i = 0; i < batch.scored.size(); ++i)
    if (batch.scored[i]) places.push_back(static_cast<int64_t>(i));
  return answers.index_select(0, at::tensor(places, at::kLong));
}

TokenStates token_states(const Decoder& model, const TrainConfig& train, const PackedBatch& batch, bool adapter) {
  const at::Device device = model.options().device;
  const PackedPrompts laid = pack_prompts(batch, may_share(model, train), device);
  const HiddenStates states = states_of(model, laid, answer_rows(batch, laid), adapter);
  return {.hidden = states.hidden, .targets = scored_tokens(batch).to(device), .aux = states.aux};
}

TokenOutputs token_outputs(const Decoder& model, const TrainConfig& train, WorkspacePool& memory,
                           const PackedBatch& batch, double temperature, bool adapter) {
  const TokenStates states = token_states(model, train, batch, adapter);
  TokenLogProbOptions options;
  options.temperature = temperature;
  options.memory = &memory;
  const TokenLogProbs result = token_logprobs(states.hidden, model.head(), states.targets, options);
  return {result.logprobs, result.entropy, states.aux};
}

void check_loss(const at::Tensor& loss, size_t part) {
  if (!loss.defined() || loss.numel() != 1)
    throw std::invalid_argument("loss of micro-batch " + std::to_string(part) + " must be one number");
  if (!std::isfinite(loss.item<double>()))
    throw std::runtime_error("loss of micro-batch " + std::to_string(part) +
                             " is not finite: " + std::to_string(loss.item<double>()));
}

}  // namespace

TrainEngine::TrainEngine(const DecoderConfig& config, const StateDict& state, const TrainConfig& train)
    : train_(train), model_(config, state, decoder_options(train)), logit_memory_(train.device) {
  schedule_factor(train.schedule, 0);  // throws when it makes no sense, before the first update is lost to it
  if (train.micro_batch_tokens < 0 || !(train.max_grad_norm >= 0))
    throw std::invalid_argument("micro_batch_tokens and max_grad_norm must not be negative");
  if (!model_.trainable()) return;
  if (train.compute_memory) model_.trainable()->place_compute(train.compute_memory);
  adamw_.emplace(*model_.trainable(), train.adamw, train.shards);
}

TokenOutputs TrainEngine::logprobs(const PackedBatch& batch, double temperature, bool adapter) {
  at::NoGradGuard no_grad;
  check_batch(batch, model_.config().vocab_size);
  std::vector<at::Tensor> logprobs, entropy;
  for (const MicroBatch& part : split_batch(batch, train_.micro_batch_tokens, may_share(model_, train_))) {
    if (part.batch.scored_tokens() == 0) continue;
    const TokenOutputs out = token_outputs(model_, train_, logit_memory_, part.batch, temperature, adapter);
    logprobs.push_back(out.logprobs);
    entropy.push_back(out.entropy);
  }
  yield_activations();
  if (logprobs.empty()) return {at::empty({0}, at::kFloat), at::empty({0}, at::kFloat)};
  return {at::cat(logprobs), at::cat(entropy)};
}

at::Tensor TrainEngine::scalars(const PackedBatch& batch, Scalars which) {
  const PackedPrompts laid = pack_prompts(batch, may_share(model_, train_), train_.device);
  const DistinctRows rows = which == Scalars::kValues ? answer_rows(batch, laid) : last_rows(batch, laid);
  return model_.scalars(states_of(model_, laid, rows, true).hidden);
}

at::Tensor TrainEngine::values(const PackedBatch& batch) {
  at::NoGradGuard no_grad;
  check_batch(batch, model_.config().vocab_size);
  std::vector<at::Tensor> values;
  for (const MicroBatch& part : split_batch(batch, train_.micro_batch_tokens, may_share(model_, train_)))
    values.push_back(scalars(part.batch, Scalars::kValues));
  return at::cat(values);
}

at::Tensor TrainEngine::scores(const PackedBatch& batch) {
  at::NoGradGuard no_grad;
  check_batch(batch, model_.config().vocab_size);
  std::vector<at::Tensor> scores;
  for (const MicroBatch& part : split_batch(batch, train_.micro_batch_tokens, may_share(model_, train_)))
    scores.push_back(scalars(part.batch, Scalars::kScores));
  return at::cat(scores);
}

double TrainEngine::for_each_part(const PackedBatch& batch,
                                  const std::function<at::Tensor(const MicroBatch& part)>& loss_of) {
  if (!adamw_) throw std::runtime_error("accumulate: this model is frozen");
  check_batch(batch, model_.config().vocab_size);
  at::AutoGradMode grad(true);
  double total = 0.0;
  size_t number = 0;
  for (const MicroBatch& part : split_batch(batch, train_.micro_batch_tokens, may_share(model_, train_))) {
    const at::Tensor loss = loss_of(part);
    if (!loss.defined()) continue;
    check_loss(loss, number++);
    if (loss.requires_grad()) torch::autograd::backward({loss}, {});
    total += loss.item<double>();
  }
  yield_activations();
  return total;
}

void TrainEngine::yield_activations() {
  if (!train_.yields_memory) return;
  model_.discard_activations();
  logit_memory_.discard();
}

Accumulated TrainEngine::accumulate(const PackedBatch& batch, double temperature, const LossFn& loss) {
  Accumulated total;
  std::vector<at::Tensor> logprobs, entropy;
  total.loss = for_each_part(batch, [&](const MicroBatch& part) {
    if (part.batch.scored_tokens() == 0) return at::Tensor();
    const TokenOutputs out = token_outputs(model_, train_, logit_memory_, part.batch, temperature, true);
    logprobs.push_back(out.logprobs.detach());
    entropy.push_back(out.entropy.detach());
    return loss(part, out);
  });
  if (logprobs.empty()) throw std::invalid_argument("batch: no answer tokens");
  total.outputs = {at::cat(logprobs), at::cat(entropy)};
  return total;
}

Accumulated TrainEngine::accumulate_states(const PackedBatch& batch, const StatesLossFn& loss) {
  return {.loss = for_each_part(batch, [&](const MicroBatch& part) {
            if (part.batch.scored_tokens() == 0) return at::Tensor();
            return loss(part, token_states(model_, train_, part.batch, true));
          })};
}

TokenStates TrainEngine::states(const PackedBatch& batch) {
  at::NoGradGuard no_grad;
  check_batch(batch, model_.config().vocab_size);
  return token_states(model_, train_, batch, true);
}

Accumulated TrainEngine::accumulate_scalars(const PackedBatch& batch, Scalars which, const ScalarLossFn& loss) {
  Accumulated total;
  std::vector<at::Tensor> outputs;
  total.loss = for_each_part(batch, [&](const MicroBatch& part) {
    const at::Tensor out = scalars(part.batch, which);
    outputs.push_back(out.detach());
    return loss(part, out);
  });
  total.outputs.logprobs = at::cat(outputs);
  return total;
}

Accumulated TrainEngine::accumulate_values(const PackedBatch& batch, const ScalarLossFn& loss) {
  return accumulate_scalars(batch, Scalars::kValues, loss);
}
Accumulated TrainEngine::accumulate_scores(const PackedBatch& batch, const ScalarLossFn& loss) {
  return accumulate_scalars(batch, Scalars::kScores, loss);
}

StepStats TrainEngine::apply(std::optional<double> rate_factor) {
  if (!adamw_) throw std::runtime_error("apply: this model is frozen");
  StepStats stats;
  stats.gradient_norm = adamw_->gradient_norm();
  if (!std::isfinite(stats.gradient_norm)) throw std::runtime_error("the gradient's norm is not finite");
  // torch.nn.utils.clip_grad_norm_
  if (train_.max_grad_norm > 0) stats.clip_factor = std::min(1.0, train_.max_grad_norm / (stats.gradient_norm + 1e-6));
  const double factor = rate_factor.value_or(schedule_factor(train_.schedule, adamw_->steps()));
  adamw_->step(factor, stats.clip_factor);
  if (train_.yields_memory) model_.trainable()->discard_grad();
  stats.step = adamw_->steps();
  stats.learning_rate = train_.adamw.learning_rate * factor;
  return stats;
}

void TrainEngine::zero_grad() {
  if (model_.trainable()) model_.trainable()->zero_grad();
}

int64_t TrainEngine::step() const {
  return adamw_ ? adamw_->steps() : 0;
}

int64_t TrainEngine::optimizer_bytes() const {
  return adamw_ ? adamw_->moment_bytes() : 0;
}

at::Tensor TrainEngine::gradients() {
  if (!adamw_) throw std::runtime_error("gradients: this model is frozen");
  return model_.trainable()->grad();
}

StateDict TrainEngine::weights() const {
  return model_.state();
}

StateDict TrainEngine::compute_weights() const {
  const ParameterArena* arena = model_.trainable();
  return arena ? arena->views(arena->compute()) : model_.state();
}

void TrainEngine::freeze_compute_weights() {
  if (model_.trainable()) model_.trainable()->freeze_compute();
}

StateDict TrainEngine::state() const {
  StateDict state = weights();
  if (!adamw_) return state;
  const at::Tensor m = adamw_->first_moment(), v = adamw_->second_moment();
  if (m.defined()) {
    state["optimizer.m"] = m;
    state["optimizer.v"] = v;
  }
  state["optimizer.step"] = at::full({1}, adamw_->steps(), at::kLong);
  return state;
}

void TrainEngine::load_state(const StateDict& state) {
  ParameterArena* arena = model_.trainable();
  if (!arena) throw std::runtime_error("load_state: this model is frozen");
  const auto find = [&](const char* name) {
    const auto found = state.find(name);
    return found == state.end() ? at::Tensor() : found->second;
  };
  const at::Tensor step = find("optimizer.step");
  if (!step.defined() || step.numel() != 1)
    throw std::invalid_argument("optimizer.step is missing or no single number");
  const int64_t steps = step.item<int64_t>();
  // Moments first: they are checked before anything changes.
  if (steps > 0)
    adamw_->load(find("optimizer.m"), find("optimizer.v"), steps);
  else
    adamw_.emplace(*arena, train_.adamw, train_.shards);
  arena->load(state);
  arena->zero_grad();
}

}  // namespace troupe
