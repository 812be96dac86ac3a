// An optimizer cut among ranks does what a whole one does, to the bit. Ranks are threads here.
#include <ATen/Parallel.h>

#include <algorithm>
#include <barrier>
#include <thread>

#include "core/train/engine.hpp"
#include "tests/core/models/fixtures.hpp"

namespace troupe {
namespace {

// Ranks that write into each other's tensors.
class Threads {
 public:
  explicit Threads(int size) : tensors_(static_cast<size_t>(size)), barrier_(size) {}

  class Rank final : public ShardGroup {
   public:
    Rank(Threads& all, int rank) : all_(all), rank_(rank) {}
    int rank() const override { return rank_; }
    int size() const override { return static_cast<int>(all_.tensors_.size()); }
    void gather(at::Tensor& whole, std::span<const int64_t> bounds) override {
      all_.tensors_[static_cast<size_t>(rank_)] = whole;
      all_.barrier_.arrive_and_wait();
      for (size_t r = 0; r < all_.tensors_.size(); ++r)
        if (static_cast<int>(r) != rank_)
          whole.slice(0, bounds[r], bounds[r + 1]).copy_(all_.tensors_[r].slice(0, bounds[r], bounds[r + 1]));
      all_.barrier_.arrive_and_wait();
    }

   private:
    Threads& all_;
    const int rank_;
  };

 private:
  std::vector<at::Tensor> tensors_;
  std::barrier<> barrier_;
};

// Runs `member` as each of `size` ranks.
void as_ranks(int size, const std::function<void(ShardGroup&)>& member) {
  Threads all(size);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank)
    threads.emplace_back([&, rank] {
      at::set_num_threads(1);
      Threads::Rank own(all, rank);
      member(own);
    });
  for (std::thread& thread : threads) thread.join();
}

TrainConfig config_of(const std::string& kind) {
  TrainConfig config{.compute = kind.ends_with("bf16") ? at::kBFloat16 : at::kFloat,
                     .score_head = kind.starts_with("score"),
                     .adamw = {.learning_rate = 1e-2, .weight_decay = 0.1},
                     .schedule = {.kind = "linear", .warmup_steps = 2, .total_steps = 20},
                     .max_grad_norm = 0.5};
  if (kind.starts_with("lora")) config.lora = LoraConfig{.rank = 4, .alpha = 8, .target_modules = {"q_proj", "o_proj"}};
  return config;
}

StateDict start_of(const TrainConfig& config) {
  StateDict state = random_state(small_config(), 3);
  at::manual_seed(4);
  if (config.score_head) state["score.weight"] = at::randn({1, small_config().hidden_size});
  return state;
}

// Gradients as they are after the sum over the ranks: the same everywhere, other ones at each step.
StepStats step(TrainEngine& engine) {
  auto random = at::make_generator<at::CPUGeneratorImpl>(static_cast<uint64_t>(engine.step()) + 1);
  engine.gradients().normal_(0.0, 1.0, random);
  return engine.apply();
}

void expect_same(const StateDict& actual, const StateDict& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (const auto& [name, value] : expected) EXPECT_TRUE(at::equal(actual.at(name), value)) << name;
}

StateDict copy_of(const StateDict& state) {
  StateDict copy;
  for (const auto& [name, value] : state) copy[name] = value.clone();
  return copy;
}

class Shards : public testing::TestWithParam<const char*> {};

TEST_P(Shards, StepAsOneWholeOptimizerDoes) {
  const TrainConfig config = config_of(GetParam());
  const StateDict start = start_of(config);
  TrainEngine whole(small_config(), start, config);
  std::vector<StepStats> expected;
  for (int i = 0; i < 5; ++i) expected.push_back(step(whole));
  for (const int size : {1, 2, 3})
    as_ranks(size, [&](ShardGroup& group) {
      TrainConfig own = config;
      own.shards = &group;
      TrainEngine engine(small_config(), start, own);
      for (const StepStats& stats : expected) {
        const StepStats mine = step(engine);
        EXPECT_EQ(mine.gradient_norm, stats.gradient_norm);
        EXPECT_LT(mine.clip_factor, 1.0);
        EXPECT_EQ(engine.gradients().abs().max().item<float>(), 0.0f);
      }
      expect_same(engine.weights(), whole.weights());
      expect_same(engine.compute_weights(), whole.compute_weights());
      const StateDict state = engine.state();
      if (group.rank() == 0) expect_same(state, whole.state());
      EXPECT_EQ(state.contains("optimizer.m"), group.rank() == 0);
      EXPECT_LE(engine.optimizer_bytes(), whole.optimizer_bytes() / size + 2 * 64 * 4);
    });
}

TEST_P(Shards, GoOnAmongAnotherNumberOfRanks) {
  const TrainConfig config = config_of(GetParam());
  const StateDict start = start_of(config);
  TrainEngine whole(small_config(), start, config);
  for (int i = 0; i < 6; ++i) step(whole);
  StateDict between;
  as_ranks(3, [&](ShardGroup& group) {
    TrainConfig own = config;
    own.shards = &group;
    TrainEngine engine(small_config(), start, own);
    for (int i = 0; i < 3; ++i) step(engine);
    const StateDict state = engine.state();
    if (group.rank() == 0) between = copy_of(state);
  });
  for (const int size : {1, 2})
    as_ranks(size, [&](ShardGroup& group) {
      TrainConfig own = config;
      own.shards = &group;
      TrainEngine engine(small_config(), start, own);
      engine.load_state(between);
      for (int i = 0; i < 3; ++i) step(engine);
      expect_same(engine.weights(), whole.weights());
      const StateDict state = engine.state();
      if (group.rank() == 0) expect_same(state, whole.state());
    });
}

INSTANTIATE_TEST_SUITE_P(Engines, Shards,
                         testing::Values("full f32", "full bf16", "lora f32", "lora bf16", "score bf16"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::ranges::replace(name, ' ', '_');
                           return name;
                         });

TEST(ShardBounds, AreNearlyEqualAtWholeVectors) {
  EXPECT_EQ(shard_bounds(1000, 3), (std::vector<int64_t>{0, 320, 640, 1000}));
  EXPECT_EQ(shard_bounds(32, 3), (std::vector<int64_t>{0, 0, 0, 32}));
  EXPECT_EQ(shard_bounds(0, 2), (std::vector<int64_t>{0, 0, 0}));
  EXPECT_THROW(shard_bounds(10, 0), std::invalid_argument);
}

// More than one round of the gathering, and shards of different lengths in the last one.
TEST(ShardBounds, ALongTensorIsGatheredInRounds) {
  const int64_t length = (int64_t{1} << 22) + 200;
  const at::Tensor expected = at::arange(length, at::kFloat);
  const std::vector<int64_t> bounds = shard_bounds(length, 3);
  as_ranks(3, [&](ShardGroup& group) {
    const auto rank = static_cast<size_t>(group.rank());
    const at::Tensor whole = gather_at_first(group, expected.slice(0, bounds[rank], bounds[rank + 1]), bounds);
    EXPECT_EQ(whole.defined(), rank == 0);
    if (rank == 0) {
      EXPECT_TRUE(at::equal(whole, expected));
    }
  });
}

}  // namespace
}  // namespace troupe
