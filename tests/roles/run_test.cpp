// The main job as a user runs it, and what it survives. Deterministic mode: a faulty run must end with the same bits as
// the undisturbed one, and every draw must be in exactly one step of the journal.
#include <signal.h>

#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/metrics/metric_names.hpp"
#include "core/metrics/metrics_log.hpp"
#include "core/metrics/summary.hpp"
#include "roles/evaluation.hpp"
#include "roles/ledger.hpp"
#include "tests/roles/run_fixture.hpp"
#include "tests/support/alive.hpp"

namespace troupe {
namespace {

constexpr int kSteps = 8;
constexpr int kPrompts = 8, kGroup = 8;
const std::string kStepsSet = "nodes.conductor.config.steps=" + std::to_string(kSteps);

void expect_same_as_undisturbed(const TroupeRun& run) {
  EXPECT_EQ(run.weights_digest(), undisturbed(kSteps).weights_digest());
  EXPECT_NE(run.weights_digest(), "");
  run.ledger(kSteps, kPrompts, kGroup);
  const auto metrics = read_metrics(run.folder() / "metrics.jsonl");
  ASSERT_EQ(metrics.size(), static_cast<std::size_t>(kSteps));
  for (int i = 0; i < kSteps; ++i) EXPECT_EQ(metrics[static_cast<std::size_t>(i)].step, static_cast<uint64_t>(i + 1));
}

TEST(Run, OneProcessAndManyEndWithTheSameBits) {
  TroupeRun run("standalone", "grpo-tiny-standalone.json", {kStepsSet});
  EXPECT_EQ(run.wait(), 0) << run.output();
  expect_same_as_undisturbed(run);
}

TEST(Run, OverTcpWithKeysEndsWithTheSameBits) {
  TroupeRun run("tcp", "grpo-tiny-local.json", {kStepsSet, "transport.control=tcp"});
  EXPECT_EQ(run.wait(), 0) << run.output();
  expect_same_as_undisturbed(run);
}

TEST(Run, EveryMetricItWritesIsKnown) {
  for (const StepMetrics& line : read_metrics(undisturbed(kSteps).folder() / "metrics.jsonl"))
    for (const auto& [name, value] : line.values) EXPECT_NE(find_metric(name), nullptr) << name;
}

TEST(Evaluation, AnAnswerIsRightWhereEveryRuleThatJudgesSaysSo) {
  const Scores scores{.scores = {0.9}, .parts = {{"numeric", {1}}, {"overlong", {-0.5}}, {"tags", {0.75}}}};
  EXPECT_TRUE(is_right(scores, "", {"overlong", "tags"}));
  EXPECT_FALSE(is_right(scores, "", {"overlong"}));
  EXPECT_FALSE(is_right(scores, "", {}));
  EXPECT_TRUE(is_right(scores, "numeric", {}));
  EXPECT_FALSE(is_right(scores, "tags", {"tags"}));
  EXPECT_THROW(is_right(scores, "exact", {}), std::runtime_error);
}

TEST(Evaluation, WhereNoRuleJudgesTheScoreDoes) {
  EXPECT_FALSE(is_right({.scores = {0.9}}, "", {}));
  EXPECT_TRUE(is_right({.scores = {1}}, "", {}));
  EXPECT_FALSE(is_right({.scores = {0.5}, .parts = {{"length", {1}}}}, "", {"length"}));
}

TEST(Evaluation, APenaltyBesideARuleDoesNotMakeEveryAnswerWrong) {
  TroupeRun run("penalty", "grpo-tiny-standalone.json",
                {"nodes.conductor.config.steps=1", "nodes.conductor.config.evaluation.rule=",
                 R"(nodes.reward.config.rules=[{"type": "contains", "texts": ["sorry"], "require": "none"},)"
                 R"({"type": "overlong", "buffer_tokens": 6}])"});
  ASSERT_EQ(run.wait(), 0) << run.output();
  EXPECT_EQ(read_summary(run.folder()).value("accuracy_before", -1.0), 1);
}

TEST(Run, AnExpectedAnswerThatNoRuleCanReadIsNamedBeforeTheFirstStep) {
  const std::string file = (TinyWorld::get().folder / "unreadable.jsonl").string();
  std::ofstream(file) << R"({"prompt": "What is 2 + 3?", "answer": "5"})"
                      << "\n\n"
                      << R"({"prompt": "What is 2 + 2?", "answer": "four"})"
                      << "\n";
  for (const std::string key : {"prompts.file", "prompts.held_out"}) {
    TroupeRun run("unreadable-" + key, "grpo-tiny-standalone.json", {kStepsSet, key + "=" + file});
    EXPECT_EQ(run.wait(), 1) << run.output();
    EXPECT_NE(run.output().find(file + ":3: rule 'numeric'"), std::string::npos) << run.output();
    EXPECT_NE(run.output().find("failed after 0 steps"), std::string::npos) << run.output();
  }
}

TEST(Run, OneActorAndThreeEndWithTheSameBits) {
  TroupeRun run("three-actors", "grpo-tiny-local.json", {kStepsSet, "nodes.actor.count=3"});
  EXPECT_EQ(run.wait(), 0) << run.output();
  expect_same_as_undisturbed(run);
}

TEST(Run, TheTinyModelLearns) {
  TroupeRun run(
      "learns", "grpo-tiny-standalone.json",
      {"nodes.conductor.config.steps=60", "nodes.learner.config.lr=1e-3", "nodes.conductor.config.checkpoint_every=0"});
  ASSERT_EQ(run.wait(), 0) << run.output();
  const auto metrics = read_metrics(run.folder() / "metrics.jsonl");
  ASSERT_EQ(metrics.size(), 60u);
  const auto mean = [&](std::size_t from, std::size_t to) {
    double sum = 0;
    for (std::size_t i = from; i < to; ++i) sum += metrics[i].values.at("reward_mean");
    return sum / static_cast<double>(to - from);
  };
  EXPECT_GT(mean(50, 60), mean(0, 10) + 0.05) << "reward did not rise";
  EXPECT_TRUE(std::filesystem::exists(run.folder() / "report.html"));
  EXPECT_TRUE(std::filesystem::exists(run.folder() / "export" / "tokenizer.json"));
  const auto summary = read_summary(run.folder());
  EXPECT_TRUE(summary.contains("accuracy_before"));
  EXPECT_TRUE(summary.contains("accuracy_after"));
}

// SmolLM2-135M in bfloat16, a role killed on the way.
TEST(RealModel, OneProcessAndManyWithAKilledLearnerEndWithTheSameBits) {
  const std::string model = std::string(TROUPE_SOURCE_DIR) + "/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!std::filesystem::exists(model)) GTEST_SKIP() << "no " << model << ": scripts/model fetches it";
  const std::vector<std::string> sets{"model=" + model,
                                      "nodes.conductor.config.steps=3",
                                      "nodes.conductor.config.prompts_per_update=2",
                                      "nodes.conductor.config.group_size=4",
                                      "sampling.max_new_tokens=12",
                                      "prompts.held_out=" + (TinyWorld::get().folder / "few.jsonl").string()};
  std::ofstream(TinyWorld::get().folder / "few.jsonl") << R"({"prompt": "What is 2 + 3?", "answer": "5"})"
                                                       << "\n";
  TroupeRun standalone("real-standalone", "grpo-smollm2-standalone.json", sets);
  ASSERT_EQ(standalone.wait(280), 0) << standalone.output();
  TroupeRun processes("real-processes", "grpo-smollm2-local.json", sets);
  ASSERT_TRUE(processes.wait_for_step(1, 200));
  ::kill(processes.pid_of("learner/0"), SIGKILL);
  ASSERT_EQ(processes.wait(280), 0) << processes.output();
  EXPECT_NE(standalone.weights_digest(), "");
  EXPECT_EQ(processes.weights_digest(), standalone.weights_digest());
  processes.ledger(3, 2, 4);
}

class KilledRole : public ::testing::TestWithParam<const char*> {};

TEST_P(KilledRole, IsReplacedAndTheWeightsAreTheSameBits) {
  const std::string role = GetParam();
  TroupeRun run("killed-" + role, "grpo-tiny-local.json", {kStepsSet, "nodes.conductor.config.checkpoint_every=2"});
  ASSERT_TRUE(run.wait_for_step(3));
  ::kill(run.pid_of(role + "/0"), SIGKILL);
  EXPECT_EQ(run.wait(), 0) << run.output();
  EXPECT_NE(run.output().find("started " + role + "/0, incarnation 2"), std::string::npos) << run.output();
  expect_same_as_undisturbed(run);
}
INSTANTIATE_TEST_SUITE_P(Every, KilledRole, ::testing::Values("actor", "learner", "reference", "reward", "conductor"),
                         [](const auto& info) { return std::string(info.param); });

TEST(Fault, ALearnerWithoutACheckpointIsFedFromTheJournal) {
  TroupeRun run("fed", "grpo-tiny-local.json", {kStepsSet, "nodes.conductor.config.checkpoint_every=0"});
  ASSERT_TRUE(run.wait_for_step(5));
  ::kill(run.pid_of("learner/0"), SIGKILL);
  EXPECT_EQ(run.wait(), 0) << run.output();
  expect_same_as_undisturbed(run);
}

TEST(Fault, AStoppedRoleIsNamedAndReplacedWithinItsLease) {
  TroupeRun run("stopped-role", "grpo-tiny-local.json", {kStepsSet, "restarts.lease_s=5"});
  ASSERT_TRUE(run.wait_for_step(2));
  const pid_t stopped = run.pid_of("learner/0");
  ::kill(stopped, SIGSTOP);
  EXPECT_EQ(run.wait(), 0) << run.output();
  EXPECT_NE(run.output().find("learner/0: no "), std::string::npos) << run.output();
  EXPECT_FALSE(alive(stopped));
  expect_same_as_undisturbed(run);
}

TEST(Fault, ARoleThatKeepsDyingEndsTheRunWithOneReport) {
  TroupeRun run("crash-loop", "grpo-tiny-local.json", {kStepsSet, "restarts.limit=2"});
  ASSERT_TRUE(run.wait_for_step(1));
  // Every new actor finds a model that is broken.
  const std::filesystem::path model = TinyWorld::get().folder / "model" / "model.safetensors";
  const std::filesystem::path aside = model.string() + ".aside";
  std::filesystem::rename(model, aside);
  std::ofstream(model) << "no safetensors at all";
  ::kill(run.pid_of("actor/0"), SIGKILL);
  const int code = run.wait();
  std::filesystem::rename(aside, model);
  EXPECT_EQ(code, 1) << run.output();
  EXPECT_NE(run.output().find("actor/0"), std::string::npos);
  EXPECT_NE(run.output().find("model.safetensors"), std::string::npos) << run.output();
  EXPECT_EQ(read_summary(run.folder()).value("state", ""), "failed");
}

TEST(Fault, TheLaunchersDeathLeavesNoProcessAndTheRunCanBeResumed) {
  TroupeRun run("launcher-killed", "grpo-tiny-local.json", {kStepsSet, "nodes.conductor.config.checkpoint_every=2"});
  ASSERT_TRUE(run.wait_for_step(3));
  std::vector<pid_t> children;
  for (const char* instance : {"actor/0", "actor/1", "learner/0", "reference/0", "reward/0", "conductor/0"})
    children.push_back(run.pid_of(instance));
  run.signal(SIGKILL);
  EXPECT_EQ(run.wait(), -SIGKILL);
  for (int i = 0; i < 50; ++i) {
    if (std::none_of(children.begin(), children.end(), alive)) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  for (const pid_t child : children) EXPECT_FALSE(alive(child)) << child;
  run.resume();
  EXPECT_EQ(run.wait(), 0) << run.output();
  expect_same_as_undisturbed(run);
}

TEST(Run, CtrlCStopsWithACheckpointAndResumeEndsWithTheSameBits) {
  TroupeRun run("interrupted", "grpo-tiny-local.json", {kStepsSet});
  ASSERT_TRUE(run.wait_for_step(3));
  run.signal(SIGINT);
  EXPECT_EQ(run.wait(), 0) << run.output();
  EXPECT_EQ(read_summary(run.folder()).value("state", ""), "stopped");
  run.resume();
  EXPECT_EQ(run.wait(), 0) << run.output();
  expect_same_as_undisturbed(run);
}

// Draws are numbered by what a step takes: another number would use some of them twice.
TEST(Run, ResumeRefusesAnotherBatchAndTakesMoreSteps) {
  TroupeRun run("changed", "grpo-tiny-local.json", {"nodes.conductor.config.steps=2"});
  ASSERT_EQ(run.wait(), 0) << run.output();
  for (const char* set : {"nodes.conductor.config.group_size=4", "nodes.conductor.config.prompts_per_update=4",
                          "nodes.learner.config.lora.rank=4"}) {
    run.resume({"--set", "nodes.conductor.config.steps=3", "--set", set});
    EXPECT_EQ(run.wait(), 1) << run.output();
    EXPECT_NE(run.output().find("has begun with another nodes."), std::string::npos) << run.output();
  }
  const std::filesystem::path moved = run.folder().parent_path() / "moved";
  std::filesystem::copy(run.folder(), moved, std::filesystem::copy_options::recursive);
  EXPECT_TRUE(check_ledger(moved).violations.empty()) << "a folder may be moved";
  run.resume({"--set", "nodes.conductor.config.steps=3", "--set", "nodes.learner.config.lr=1e-6"});
  EXPECT_EQ(run.wait(), 0) << run.output();
  EXPECT_EQ(run.steps_ended(), 3u);
}

TEST(Run, ARoleThatCannotBeMadeEndsAStandaloneRunAtOnce) {
  TroupeRun run("standalone-failing", "grpo-tiny-standalone.json", {"nodes.learner.config.model=/nowhere"});
  EXPECT_EQ(run.wait(), 1) << run.output();
  EXPECT_NE(run.output().find("/nowhere"), std::string::npos) << run.output();
}

TEST(Fault, ATornCheckpointIsNeverLoaded) {
  TroupeRun run("torn", "grpo-tiny-local.json", {kStepsSet, "nodes.conductor.config.checkpoint_every=2"});
  ASSERT_TRUE(run.wait_for_step(5));
  run.signal(SIGINT);
  ASSERT_EQ(run.wait(), 0) << run.output();
  std::vector<std::filesystem::path> made;
  for (const auto& entry : std::filesystem::directory_iterator(run.folder() / "checkpoints"))
    made.push_back(entry.path());
  std::sort(made.begin(), made.end());
  ASSERT_GE(made.size(), 2u);
  // One bit of the newest one's largest file.
  for (const auto& entry : std::filesystem::directory_iterator(made.back())) {
    if (entry.path().extension() != ".safetensors") continue;
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(-7, std::ios::end);
    const int byte = file.peek();
    file.seekp(-7, std::ios::end);
    file.put(static_cast<char>(byte ^ 1));
  }
  run.resume();
  EXPECT_EQ(run.wait(), 0) << run.output();
  EXPECT_NE(run.log_of("learner/0").find(made.back().filename().string()), std::string::npos)
      << "the damage is not named in the learner's log:\n"
      << run.log_of("learner/0");
  expect_same_as_undisturbed(run);
}

TEST(Fault, TwoRolesKilledAtOnceAreReplaced) {
  TroupeRun run("two-killed", "grpo-tiny-local.json", {kStepsSet});
  ASSERT_TRUE(run.wait_for_step(3));
  ::kill(run.pid_of("learner/0"), SIGKILL);
  ::kill(run.pid_of("actor/1"), SIGKILL);
  EXPECT_EQ(run.wait(), 0) << run.output();
  expect_same_as_undisturbed(run);
}

TEST(RemoteReward, APythonRolePlugsInAndIsReplacedWhileTheRunGoesOn) {
  const std::string python = std::string(TROUPE_DEPS) + "/python/bin/python3";
  const std::string example = std::string(TROUPE_SOURCE_DIR) + "/examples/reward_server.py";
  TroupeRun run("remote-reward", "grpo-tiny-remote-reward.json", {kStepsSet});
  const auto serve = [&](const char* log) {
    return Process::spawn(
        {.argv = {python, example, run.folder().string()}, .log_path = (TinyWorld::get().folder / log).string()});
  };
  std::optional<Process> first = serve("reward-1.log");
  ASSERT_TRUE(run.wait_for_step(3)) << tail((TinyWorld::get().folder / "reward-1.log").string(), 20);
  first.reset();  // SIGKILL
  const Process second = serve("reward-2.log");
  EXPECT_EQ(run.wait(), 0) << run.output() << tail((TinyWorld::get().folder / "reward-2.log").string(), 20);
  run.ledger(kSteps, kPrompts, kGroup);
}

}  // namespace
}  // namespace troupe
