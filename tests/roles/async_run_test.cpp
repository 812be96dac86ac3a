// Asynchronous runs as a user starts them. Deterministic mode keeps a schedule that no timing has a part in: runs with
// random delays, with killed roles, in one process or in many end with the same bits. A free-running one keeps its
// bound on staleness for every token and uses every draw once.
#include <signal.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/metrics/metrics_log.hpp"
#include "core/metrics/summary.hpp"
#include "tests/roles/run_fixture.hpp"

namespace troupe {
namespace {

constexpr int kSteps = 6;
constexpr int kPrompts = 8, kGroup = 8;

std::vector<std::string> settings(int staleness, const std::vector<std::string>& more = {}) {
  std::vector<std::string> sets{"nodes.conductor.config.steps=" + std::to_string(kSteps),
                                "nodes.conductor.config.max_staleness=" + std::to_string(staleness),
                                "nodes.conductor.config.checkpoint_every=2"};
  sets.insert(sets.end(), more.begin(), more.end());
  return sets;
}

const TroupeRun& calm(int staleness) {
  static std::map<int, std::unique_ptr<TroupeRun>> runs;
  auto& run = runs[staleness];
  if (!run) {
    run = std::make_unique<TroupeRun>("calm-" + std::to_string(staleness), "grpo-tiny-async.json", settings(staleness));
    if (run->wait() != 0) throw std::runtime_error("the undisturbed run failed:\n" + run->output());
  }
  return *run;
}

// Every token's lag: at most K, and in deterministic mode exactly what the schedule says.
void expect_lags(const TroupeRun& run, int staleness, bool deterministic) {
  for (const Experience& batch : run.ledger(kSteps, kPrompts, kGroup)) {
    const auto step = static_cast<int64_t>(batch.step);
    const int64_t oldest = std::max<int64_t>(0, step - 1 - staleness);
    for (const int32_t version : batch.versions.as<int32_t>()) {
      ASSERT_GE(version, oldest) << "step " << step;
      ASSERT_LE(version, deterministic ? oldest : step - 1) << "step " << step;
    }
  }
}

void expect_every_step_has_its_line(const TroupeRun& run) {
  const auto metrics = read_metrics(run.folder() / "metrics.jsonl");
  ASSERT_EQ(metrics.size(), static_cast<std::size_t>(kSteps));
  for (int i = 0; i < kSteps; ++i) EXPECT_EQ(metrics[static_cast<std::size_t>(i)].step, static_cast<uint64_t>(i + 1));
}

void expect_same_as_calm(const TroupeRun& run, int staleness) {
  EXPECT_EQ(run.weights_digest(), calm(staleness).weights_digest());
  EXPECT_NE(run.weights_digest(), "");
  expect_lags(run, staleness, true);
  expect_every_step_has_its_line(run);
}

class Schedule : public ::testing::TestWithParam<int> {};

TEST_P(Schedule, RandomDelaysOnEveryMessageChangeNoBit) {
  const int staleness = GetParam();
  for (const char* seed : {"1", "2"}) {
    TroupeRun run("delayed-" + std::to_string(staleness) + "-" + seed, "grpo-tiny-async.json", settings(staleness),
                  std::string("*#*:message:*:delay~15@") + seed);
    ASSERT_EQ(run.wait(240), 0) << run.output();
    expect_same_as_calm(run, staleness);
  }
}

TEST_P(Schedule, OneProcessAndManyEndWithTheSameBits) {
  const int staleness = GetParam();
  TroupeRun run("one-process-" + std::to_string(staleness), "grpo-tiny-async.json",
                settings(staleness, {"run.mode=standalone"}));
  ASSERT_EQ(run.wait(), 0) << run.output();
  expect_same_as_calm(run, staleness);
}

TEST_P(Schedule, ResumedAfterCtrlCAndAfterEverythingIsKilledItEndsWithTheSameBits) {
  const int staleness = GetParam();
  TroupeRun run("resumed-" + std::to_string(staleness), "grpo-tiny-async.json", settings(staleness));
  ASSERT_TRUE(run.wait_for_step(2));
  run.signal(SIGINT);
  ASSERT_EQ(run.wait(), 0) << run.output();
  EXPECT_EQ(read_summary(run.folder()).value("state", ""), "stopped");
  run.resume();
  ASSERT_TRUE(run.wait_for_step(3));
  run.signal(SIGKILL);  // the launcher's children die with it
  EXPECT_EQ(run.wait(), -SIGKILL);
  run.resume();
  ASSERT_EQ(run.wait(), 0) << run.output();
  expect_same_as_calm(run, staleness);
}

INSTANTIATE_TEST_SUITE_P(Staleness, Schedule, ::testing::Values(1, 2));

// In bfloat16 actors read the memory that the learner computes from.
TEST(Bfloat16, AKilledLearnerChangesNoBit) {
  const std::vector<std::string> sets =
      settings(2, {"nodes.learner.config.dtype=bf16", "nodes.actor.config.dtype=bf16"});
  std::vector<std::string> in_one = sets;
  in_one.push_back("run.mode=standalone");
  TroupeRun calm("bf16-calm", "grpo-tiny-async.json", in_one);
  ASSERT_EQ(calm.wait(), 0) << calm.output();
  TroupeRun run("bf16-killed", "grpo-tiny-async.json", sets);
  ASSERT_TRUE(run.wait_for_step(3));
  ::kill(run.pid_of("learner/0"), SIGKILL);
  ASSERT_EQ(run.wait(240), 0) << run.output();
  EXPECT_NE(run.weights_digest(), "");
  EXPECT_EQ(run.weights_digest(), calm.weights_digest());
  expect_lags(run, 2, true);
  expect_every_step_has_its_line(run);
}

TEST(Ages, TokensAreTheOlderTheHigherTheBound) {
  EXPECT_NE(calm(1).weights_digest(), calm(2).weights_digest());
  const auto metrics = read_metrics(calm(2).folder() / "metrics.jsonl");
  EXPECT_EQ(metrics.at(0).values.at("staleness_0"), 1.0);
  EXPECT_EQ(metrics.at(1).values.at("staleness_1"), 1.0);
  EXPECT_EQ(metrics.at(kSteps - 1).values.at("staleness_2"), 1.0);
  EXPECT_EQ(metrics.at(kSteps - 1).values.at("staleness"), 2.0);
}

// Two roles at a time, at points of their work and not of the clock.
class Killed : public ::testing::TestWithParam<const char*> {};

TEST_P(Killed, IsReplacedAndTheWeightsAreTheSameBits) {
  std::string name = GetParam();
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '-';
  for (const int staleness : {1, 2}) {
    TroupeRun run("killed-" + std::to_string(staleness) + name, "grpo-tiny-async.json", settings(staleness),
                  std::string(GetParam()));
    ASSERT_EQ(run.wait(), 0) << run.output();
    EXPECT_NE(run.output().find("incarnation 2"), std::string::npos) << run.output();
    expect_same_as_calm(run, staleness);
  }
}
INSTANTIATE_TEST_SUITE_P(At, Killed,
                         ::testing::Values("actor/0:generate:9:kill", "actor/1:weights.taken:2:kill",
                                           "learner/0:updated:4:kill", "learner/0:checkpoint.rename:1:kill",
                                           "conductor/0:journal.synced:4:kill", "conductor/0:journal.sync:3:kill",
                                           "learner/0:publish:5:kill;actor/0:weights:4:kill",
                                           "conductor/0:journal.synced:5:kill;learner/0:updated:5:kill",
                                           "reward/0:request:20:kill", "reference/0:request:4:kill"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::erase_if(name, [](unsigned char c) { return !std::isalnum(c); });
                           return name;
                         });

TEST(FreeRunning, TheBoundHoldsForEveryTokenAndEveryDrawIsUsedOnce) {
  TroupeRun run("free", "grpo-tiny-async.json",
                settings(2, {"run.deterministic=false", "sampling.max_new_tokens=24", "sampling.ignore_eos=true"}),
                std::string("actor#*:generate:*:delay=20"));  // slower than the learner, on a crowded machine too
  ASSERT_EQ(run.wait(240), 0) << run.output();
  expect_lags(run, 2, false);
  expect_every_step_has_its_line(run);
  // New weights went in while answers were under way: some answer has tokens of two versions.
  bool mixed = false;
  for (const Experience& batch : run.ledger(kSteps, kPrompts, kGroup)) {
    const auto versions = batch.versions.as<int32_t>();
    std::size_t at = 0;
    for (const int32_t length : batch.response_lengths.as<int32_t>()) {
      for (int32_t i = 1; i < length; ++i) mixed |= versions[at + static_cast<std::size_t>(i)] != versions[at];
      at += static_cast<std::size_t>(length);
    }
  }
  EXPECT_TRUE(mixed);
}

TEST(FreeRunning, SurvivesAKilledLearnerActorAndConductor) {
  TroupeRun run("free-killed", "grpo-tiny-async.json", settings(2, {"run.deterministic=false"}),
                std::string("learner/0:updated:3:kill;actor/0:generate:30:kill;conductor/0:journal.synced:6:kill"));
  ASSERT_EQ(run.wait(240), 0) << run.output();
  expect_lags(run, 2, false);
  expect_every_step_has_its_line(run);
}

// Its successor has the actors go back to an earlier version: answers under way for later steps may not go on with it.
TEST(FreeRunning, AConductorThatDiesWhileAnswersAreUnderWayDiesOnce) {
  TroupeRun run("free-back", "grpo-tiny-async.json",
                settings(2, {"run.deterministic=false", "sampling.max_new_tokens=24", "sampling.ignore_eos=true"}),
                std::string("actor#*:generate:*:delay=20;conductor/0:journal.synced:3:kill"));
  ASSERT_EQ(run.wait(240), 0) << run.output();
  EXPECT_NE(run.output().find("started conductor/0, incarnation 2"), std::string::npos) << run.output();
  EXPECT_EQ(run.output().find("started conductor/0, incarnation 3"), std::string::npos) << run.output();
  expect_lags(run, 2, false);
  expect_every_step_has_its_line(run);
}

}  // namespace
}  // namespace troupe
