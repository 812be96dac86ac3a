#include "core/train/engine.hpp"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/grad_mode.h>

#include "tests/core/models/fixtures.hpp"

namespace troupe {
namespace {

// Many tiny steps: threads would spend their time waiting for each other, longest on a busy machine.
class OneThread {
 public:
  OneThread() { at::set_num_threads(1); }
  ~OneThread() { at::set_num_threads(before_); }

 private:
  int before_ = at::get_num_threads();
};

PackedBatch small_batch() {
  PackedBatch batch;
  batch.prompt_lengths = {5, 1, 40, 3, 7, 2};
  batch.response_lengths = {9, 20, 64, 0, 1, 31};
  batch.tokens = random_ids(183, small_config().vocab_size, 11);
  return batch;
}

// A loss that weighs every token and entropy differently, divided by the whole batch's count.
LossFn weighted_loss(const PackedBatch& batch) {
  at::manual_seed(12);
  const int64_t count = batch.response_tokens();
  const at::Tensor weight = at::randn({count}), entropy_weight = at::randn({count});
  return [=](const MicroBatch& part, const TokenOutputs& out) {
    return ((out.logprobs * weight.index_select(0, part.tokens_of)).sum() +
            (out.entropy * entropy_weight.index_select(0, part.tokens_of)).sum()) /
           static_cast<double>(count);
  };
}

TrainConfig train_config(at::ScalarType compute = at::kFloat) {
  TrainConfig config;
  config.compute = compute;
  config.adamw.learning_rate = 1e-3;
  config.adamw.weight_decay = 0.01;
  return config;
}

TrainEngine small_engine(const TrainConfig& config) {
  return {small_config(), random_state(small_config()), config};
}

TEST(PackedBatch, IsCutIntoWholeSequencesWithinTheBudget) {
  const PackedBatch batch = small_batch();
  const std::vector<MicroBatch> parts = split_batch(batch, 60);
  std::vector<std::vector<int64_t>> sequences;
  std::vector<at::Tensor> tokens, tokens_of;
  for (const MicroBatch& part : parts) {
    check_batch(part.batch, small_config().vocab_size);
    sequences.push_back(part.sequences);
    tokens.push_back(part.batch.tokens);
    tokens_of.push_back(part.tokens_of);
  }
  EXPECT_EQ(sequences, (std::vector<std::vector<int64_t>>{{0, 1}, {2}, {3, 4, 5}}));
  EXPECT_TRUE(at::equal(at::cat(tokens), batch.tokens));
  EXPECT_TRUE(at::equal(at::cat(tokens_of), at::arange(batch.response_tokens())));
  EXPECT_EQ(split_batch(batch, 0).size(), 1u);
}

TEST(PackedBatch, UnitsStayTogether) {
  PackedBatch batch = small_batch();
  batch.unit = 2;
  std::vector<std::vector<int64_t>> sequences;
  for (const MicroBatch& part : split_batch(batch, 60)) sequences.push_back(part.sequences);
  EXPECT_EQ(sequences, (std::vector<std::vector<int64_t>>{{0, 1}, {2, 3}, {4, 5}}));
  batch.unit = 4;
  EXPECT_THROW(check_batch(batch, small_config().vocab_size), std::invalid_argument);
}

// Marked answer tokens alone are scored, in every split, and their log-probabilities are those of the whole batch.
TEST(PackedBatch, ScoredTokensAreThoseMarked) {
  const OneThread one;
  PackedBatch batch = small_batch();
  TrainEngine engine = small_engine(train_config());
  const at::Tensor all = engine.logprobs(batch, 1.0).logprobs;
  std::vector<int64_t> places;
  for (int64_t i = 0; i < batch.response_tokens(); ++i) {
    batch.scored.push_back(i % 3 == 1);
    if (i % 3 == 1) places.push_back(i);
  }
  const at::Tensor expected = all.index_select(0, at::tensor(places, at::kLong));
  EXPECT_EQ(batch.scored_tokens(), expected.size(0));
  EXPECT_TRUE(at::allclose(engine.logprobs(batch, 1.0).logprobs, expected, 1e-6, 1e-6));
  std::vector<at::Tensor> tokens_of;
  int64_t counted = 0;
  engine.accumulate(batch, 1.0, [&](const MicroBatch& part, const TokenOutputs& out) {
    EXPECT_EQ(part.batch.scored_tokens(), out.logprobs.size(0));
    EXPECT_TRUE(at::allclose(out.logprobs.detach(), expected.index_select(0, part.tokens_of), 1e-6, 1e-6));
    counted += out.logprobs.size(0);
    return -out.logprobs.sum();
  });
  EXPECT_EQ(counted, expected.size(0));
}

TEST(PackedBatch, RefusesWhatDoesNotFit) {
  const auto message = [](const std::function<void(PackedBatch&)>& spoil) {
    PackedBatch batch = small_batch();
    spoil(batch);
    try {
      check_batch(batch, 61);
    } catch (const std::invalid_argument& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  EXPECT_EQ(message([](PackedBatch& b) { b.prompt_lengths[1] = 0; }), "batch: prompt_lengths[1] is 0, expected >= 1");
  EXPECT_EQ(message([](PackedBatch& b) { b.response_lengths.pop_back(); }),
            "batch: 6 prompt_lengths, 5 response_lengths");
  EXPECT_EQ(message([](PackedBatch& b) { ++b.response_lengths[0]; }),
            "batch: lengths add up to more than the 183 tokens");
  EXPECT_EQ(message([](PackedBatch& b) { --b.response_lengths[0]; }),
            "batch: lengths add up to 182, but there are 183 tokens");
  EXPECT_EQ(message([](PackedBatch& b) { b.tokens[3] = 61; }), "batch: token id 61 is outside the vocabulary of 61");
  EXPECT_EQ(message([](PackedBatch& b) { b.tokens = b.tokens.to(at::kInt); }), "batch: tokens must be int64 [S]");
}

TEST(TrainEngine, ResultDoesNotDependOnMicroBatches) {
  const PackedBatch batch = small_batch();
  TrainConfig config = train_config();
  config.micro_batch_tokens = 0;
  TrainEngine whole = small_engine(config);
  const Accumulated expected = whole.accumulate(batch, 0.8, weighted_loss(batch));
  for (int64_t budget : {1, 60, 100}) {
    config.micro_batch_tokens = budget;
    TrainEngine parts = small_engine(config);
    const Accumulated actual = parts.accumulate(batch, 0.8, weighted_loss(batch));
    EXPECT_NEAR(actual.loss, expected.loss, 1e-5 * std::abs(expected.loss));
    EXPECT_LT(relative_error(actual.outputs.logprobs, expected.outputs.logprobs), 1e-5);
    EXPECT_LT(relative_error(parts.gradients(), whole.gradients()), 1e-5);
  }
}

// Groups of answers to one prompt (with an empty answer and a neighbour whose prompt differs in its last token).
PackedBatch grouped_batch() {
  const at::Tensor prompts = random_ids(3 * 21, small_config().vocab_size, 5);
  const std::vector<std::pair<int64_t, int64_t>> answers{{0, 9}, {0, 0}, {0, 33}, {0, 1}, {1, 4}, {2, 7}, {2, 40}};
  PackedBatch batch;
  std::vector<at::Tensor> pieces;
  for (const auto& [prompt, length] : answers) {
    pieces.push_back(prompt == 1 ? at::cat({prompts.slice(0, 0, 20), prompts.slice(0, 41, 42)})
                                 : prompts.slice(0, prompt * 21, prompt * 21 + 21));
    pieces.push_back(random_ids(length, small_config().vocab_size, 100 + length));
    batch.prompt_lengths.push_back(21);
    batch.response_lengths.push_back(length);
  }
  batch.tokens = at::cat(pieces);
  return batch;
}

TEST(TrainEngine, SharingAPromptChangesNothingButTheWork) {
  const PackedBatch batch = grouped_batch();
  for (const bool checkpointing : {false, true}) {
    TrainConfig config = train_config();
    config.gradient_checkpointing = checkpointing;
    config.share_prompts = false;
    TrainEngine apart = small_engine(config);
    const Accumulated expected = apart.accumulate(batch, 0.8, weighted_loss(batch));
    config.share_prompts = true;
    for (const int64_t budget : {0, 30, 60}) {
      config.micro_batch_tokens = budget;
      TrainEngine shared = small_engine(config);
      const Accumulated actual = shared.accumulate(batch, 0.8, weighted_loss(batch));
      EXPECT_NEAR(actual.loss, expected.loss, 1e-5 * std::abs(expected.loss));
      EXPECT_LT(relative_error(actual.outputs.logprobs, expected.outputs.logprobs), 1e-5);
      EXPECT_LT(relative_error(shared.gradients(), apart.gradients()), 1e-5);
    }
  }
}

TEST(TrainEngine, SharingAPromptInBfloat16StaysClose) {
  const PackedBatch batch = grouped_batch();
  TrainConfig config = train_config(at::kBFloat16);
  config.share_prompts = false;
  TrainEngine apart = small_engine(config);
  const Accumulated expected = apart.accumulate(batch, 0.8, weighted_loss(batch));
  config.share_prompts = true;
  TrainEngine shared = small_engine(config);
  const Accumulated actual = shared.accumulate(batch, 0.8, weighted_loss(batch));
  EXPECT_LT(relative_error(actual.outputs.logprobs, expected.outputs.logprobs), 0.01);
  EXPECT_LT(relative_error(shared.gradients(), apart.gradients()), 0.03);
}

TEST(TrainEngine, ResultDoesNotDependOnTheOrderOfSequences) {
  PackedBatch batch, reversed;
  batch.prompt_lengths = {5, 8, 3};
  batch.response_lengths = {9, 2, 40};
  batch.tokens = random_ids(67, small_config().vocab_size, 11);
  reversed.prompt_lengths = {3, 8, 5};
  reversed.response_lengths = {40, 2, 9};
  reversed.tokens = at::cat({batch.tokens.slice(0, 24), batch.tokens.slice(0, 14, 24), batch.tokens.slice(0, 0, 14)});
  const LossFn loss = [](const MicroBatch&, const TokenOutputs& out) { return out.logprobs.mean(); };
  TrainEngine one = small_engine(train_config()), other = small_engine(train_config());
  one.accumulate(batch, 1.0, loss);
  other.accumulate(reversed, 1.0, loss);
  EXPECT_LT(relative_error(one.gradients(), other.gradients()), 1e-5);
}

TEST(TrainEngine, LogProbsAreTheBitsThatTrainingSees) {
  const PackedBatch batch = small_batch();
  for (at::ScalarType compute : {at::kFloat, at::kBFloat16}) {
    TrainConfig config = train_config(compute);
    config.micro_batch_tokens = 100;
    TrainEngine engine = small_engine(config);
    const TokenOutputs before = engine.logprobs(batch, 0.8);
    const Accumulated seen = engine.accumulate(batch, 0.8, weighted_loss(batch));
    EXPECT_TRUE(at::equal(before.logprobs, seen.outputs.logprobs));
    EXPECT_TRUE(at::equal(before.entropy, seen.outputs.entropy));
  }
}

TEST(TrainEngine, GivingMemoryBackBetweenPassesChangesNoBit) {
  const PackedBatch batch = small_batch();
  for (at::ScalarType compute : {at::kFloat, at::kBFloat16}) {
    TrainConfig config = train_config(compute);
    config.micro_batch_tokens = 100;
    TrainEngine keeps = small_engine(config);
    config.yields_memory = true;
    TrainEngine yields = small_engine(config);
    for (int step = 0; step < 3; ++step) {
      EXPECT_TRUE(at::equal(yields.logprobs(batch, 0.8).logprobs, keeps.logprobs(batch, 0.8).logprobs));
      for (TrainEngine* engine : {&keeps, &yields}) engine->accumulate(batch, 0.8, weighted_loss(batch));
      EXPECT_EQ(yields.apply().gradient_norm, keeps.apply().gradient_norm);
      EXPECT_EQ(yields.gradients().abs().max().item<float>(), 0.0f);
    }
    for (const auto& [name, weight] : keeps.weights()) EXPECT_TRUE(at::equal(yields.weights().at(name), weight));
  }
}

TEST(TrainEngine, GradientsOfLogProbsMatchDifferences) {
  const PackedBatch batch = small_batch();
  const LossFn loss = weighted_loss(batch);
  TrainEngine engine = small_engine(train_config());
  engine.accumulate(batch, 0.8, loss);
  const at::Tensor gradient = engine.gradients().clone();
  engine.zero_grad();
  // Along the gradient itself the loss must rise by its squared norm.
  at::NoGradGuard no_grad;
  at::Tensor weights = engine.model().trainable()->master();
  const double step = 1e-3 / gradient.norm().item<double>();
  const auto loss_at = [&](double distance) {
    weights.add_(gradient, distance);
    const double value = engine.accumulate(batch, 0.8, loss).loss;
    weights.sub_(gradient, distance);
    return value;
  };
  const double slope = (loss_at(step) - loss_at(-step)) / (2 * step);
  EXPECT_NEAR(slope, gradient.pow(2).sum().item<double>(), 0.01 * std::abs(slope));
}

std::vector<at::Tensor> run_steps(TrainEngine& engine, int steps) {
  const PackedBatch batch = small_batch();
  std::vector<at::Tensor> weights;
  for (int i = 0; i < steps; ++i) {
    engine.accumulate(batch, 1.0, weighted_loss(batch));
    engine.apply();
    weights.push_back(engine.model().trainable()->master().clone());
  }
  return weights;
}

TEST(TrainEngine, RepeatsItselfToTheBit) {
  for (at::ScalarType compute : {at::kFloat, at::kBFloat16}) {
    TrainEngine one = small_engine(train_config(compute)), other = small_engine(train_config(compute));
    EXPECT_TRUE(at::equal(run_steps(one, 3).back(), run_steps(other, 3).back()));
  }
}

TEST(TrainEngine, GoesOnFromItsStateWithTheSameBits) {
  const OneThread one_thread;
  for (bool lora : {false, true}) {
    TrainConfig config = train_config(at::kBFloat16);
    config.schedule = {"cosine", 2, 10};
    if (lora) config.lora = LoraConfig{};
    TrainEngine one = small_engine(config);
    run_steps(one, 2);
    StateDict saved;
    for (const auto& [name, tensor] : one.state()) saved[name] = tensor.clone();
    const std::vector<at::Tensor> expected = run_steps(one, 2);
    TrainEngine other = small_engine(config);
    run_steps(other, 1);
    other.load_state(saved);
    EXPECT_EQ(other.step(), 2);
    EXPECT_TRUE(at::equal(run_steps(other, 2).back(), expected.back()));
    saved.erase("optimizer.v");
    EXPECT_THROW(other.load_state(saved), std::invalid_argument);
  }
}

TEST(TrainEngine, LearnsOneBatchByHeart) {
  const OneThread one_thread;
  for (bool lora : {false, true}) {
    TrainConfig config = train_config(at::kBFloat16);
    config.adamw.learning_rate = lora ? 1e-2 : 3e-3;
    config.gradient_checkpointing = lora;
    if (lora) config.lora = LoraConfig{};
    TrainEngine engine = small_engine(config);
    const PackedBatch batch = small_batch();
    const LossFn loss = [&](const MicroBatch&, const TokenOutputs& out) {
      return -out.logprobs.sum() / static_cast<double>(batch.response_tokens());
    };
    const double first = engine.accumulate(batch, 1.0, loss).loss;
    engine.apply();
    double last = first;
    for (int i = 0; i < 40; ++i) {
      last = engine.accumulate(batch, 1.0, loss).loss;
      engine.apply();
    }
    EXPECT_LT(last, 0.3 * first) << (lora ? "LoRA" : "full");
  }
}

TEST(TrainEngine, TrainsValuesAndScores) {
  const OneThread one_thread;
  TrainConfig config = train_config();
  config.score_head = true;
  config.adamw.learning_rate = 1e-2;
  for (bool values : {true, false}) {
    TrainEngine engine = small_engine(config);
    const PackedBatch batch = small_batch();
    const int64_t count = values ? batch.response_tokens() : batch.sequences();
    at::manual_seed(3);
    const at::Tensor target = at::randn({count});
    const ScalarLossFn loss = [&](const MicroBatch& part, const at::Tensor& scalars) {
      const at::Tensor index = values ? part.tokens_of : at::tensor(part.sequences, at::kLong);
      return (scalars - target.index_select(0, index)).pow(2).sum() / static_cast<double>(count);
    };
    const auto step = [&] {
      const Accumulated result = values ? engine.accumulate_values(batch, loss) : engine.accumulate_scores(batch, loss);
      EXPECT_TRUE(at::equal(result.outputs.logprobs, values ? engine.values(batch) : engine.scores(batch)));
      engine.apply();
      return result.loss;
    };
    const double first = step();
    double last = first;
    for (int i = 0; i < 30; ++i) last = step();
    EXPECT_LT(last, 0.3 * first);
    EXPECT_GT(engine.weights().at("score.weight").abs().max().item<float>(), 0.0f);
  }
}

TEST(TrainEngine, RefusesALossThatIsNotFiniteAndKeepsTheWeights) {
  TrainEngine engine = small_engine(train_config());
  const PackedBatch batch = small_batch();
  const at::Tensor before = engine.model().trainable()->master().clone();
  EXPECT_THROW(engine.accumulate(batch, 1.0,
                                 [](const MicroBatch&, const TokenOutputs& out) { return out.logprobs.sum() / 0.0; }),
               std::runtime_error);
  engine.zero_grad();
  engine.gradients()[0] = NAN;
  EXPECT_THROW(engine.apply(), std::runtime_error);
  EXPECT_TRUE(at::equal(engine.model().trainable()->master(), before));
}

TEST(TrainEngine, FrozenModelOnlyScores) {
  TrainConfig config = train_config();
  config.frozen = true;
  TrainEngine engine = small_engine(config), trained = small_engine(train_config());
  const PackedBatch batch = small_batch();
  EXPECT_TRUE(at::equal(engine.logprobs(batch, 1.0).logprobs, trained.logprobs(batch, 1.0).logprobs));
  EXPECT_THROW(engine.accumulate(batch, 1.0, weighted_loss(batch)), std::runtime_error);
  EXPECT_THROW(engine.apply(), std::runtime_error);
}

}  // namespace
}  // namespace troupe
