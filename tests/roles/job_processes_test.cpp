// Jobs of several processes, run by the real binary.
#include "tests/roles/job_processes.hpp"

#include <ATen/ops/allclose.h>

#include <csignal>
#include <nlohmann/json.hpp>

#include "core/metrics/summary.hpp"

namespace troupe {
namespace {

namespace fs = std::filesystem;

// Rank 1 of a running job.
pid_t child_of(pid_t parent) {
  std::ifstream children("/proc/" + std::to_string(parent) + "/task/" + std::to_string(parent) + "/children");
  pid_t child = 0;
  children >> child;
  return child;
}

TEST_F(JobProcesses, TwoProcessesTrainAsOne) {
  ASSERT_EQ(run("one", {"--epochs", "5", "--batch_size", "16", "--learning_rate", "1e-2"}), 0) << log("one");
  ASSERT_EQ(run("two", {"--epochs", "5", "--batch_size", "8", "--learning_rate", "1e-2", "--nproc", "2"}), 0)
      << log("two");
  const StateDict one = weights("one"), two = weights("two");
  for (const auto& [name, value] : one) EXPECT_TRUE(at::allclose(value, two.at(name), 1e-3, 1e-3)) << name;
}

std::string bytes_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

// Weights, and the checkpoint's file: it is whole, and does not tell how many processes kept the optimizer's state.
TEST_F(JobProcesses, TheOptimizerStateCutAmongProcessesChangesNoBit) {
  const std::vector<std::string> settings{"--epochs",        "2",    "--batch_size", "2",
                                          "--learning_rate", "1e-2", "--nproc",      "3"};
  for (const std::string zero : {"0", "1"}) {
    std::vector<std::string> more = settings;
    more.insert(more.end(), {"--zero", zero});
    ASSERT_EQ(run("zero" + zero, more), 0) << log("zero" + zero);
  }
  const StateDict whole = weights("zero0"), cut = weights("zero1");
  for (const auto& [name, value] : whole) EXPECT_TRUE(at::equal(value, cut.at(name))) << name;
  const std::string file = "checkpoints/pretrain_32_resume/step-000006/learner.safetensors";
  EXPECT_TRUE(bytes_of(home_ / "zero0" / file) == bytes_of(home_ / "zero1" / file));
  EXPECT_NE(log("zero1").find("3 processes, each with"), std::string::npos) << log("zero1");
}

TEST_F(JobProcesses, ADeadRankEndsTheJobByName) {
  Process job = start("dead", {"--epochs", "100000", "--batch_size", "4", "--nproc", "2"});
  ASSERT_TRUE(reached("dead", 3)) << log("dead");
  kill(child_of(job.pid()), SIGKILL);
  EXPECT_EQ(end(std::move(job), "dead"), 1);
  EXPECT_NE(log("dead").find("rank 1 ended with signal 9"), std::string::npos) << log("dead");
}

// Line 2 is rank 1's or rank 0's: whoever reads it, the job ends by its name.
TEST_F(JobProcesses, AnyRanksMalformedLineIsNamedAndCounted) {
  fs::rename(home_ / "text.jsonl", home_ / "good.jsonl");
  std::ofstream lines(home_ / "text.jsonl");
  for (int i = 0; i < 16; ++i)
    lines << (i < 6 ? "{\"text\": 7}\n" : "{\"text\": \"line number " + std::to_string(i) + " of the text\"}\n");
  lines.close();
  std::vector<std::string> settings{"--nproc", "2", "--batch_size", "2"};
  ASSERT_EQ(run("bad", settings), 1) << log("bad");
  EXPECT_NE(log("bad").find("text.jsonl:"), std::string::npos) << log("bad");
  settings.insert(settings.end(), {"--on_malformed", "skip", "--eval_path", home_ / "good.jsonl"});
  ASSERT_EQ(run("skipped", settings), 0) << log("skipped");
  const nlohmann::json summary = read_summary(home_ / "skipped/run");
  EXPECT_EQ(summary.at("malformed_lines"), 6) << summary;
  EXPECT_LT(summary.at("eval_loss_after"), summary.at("eval_loss_before"));
}

// The folder is called as the outputs are, so a second try of a command finds the finished job's.
TEST_F(JobProcesses, AJobThatCannotBeginLeavesTheFinishedOneAsItIs) {
  ASSERT_EQ(run("done", {"--batch_size", "4"}), 0) << log("done");
  std::map<std::string, std::string> before;
  for (const char* file : {"summary.json", "job.json", "metrics.jsonl", "report.html"})
    before[file] = bytes_of(home_ / "done/run" / file);
  const auto expect_untouched = [&](const char* flag, const std::string& value, const std::string& about) {
    fs::remove(home_ / "done/log");
    EXPECT_EQ(run("done", {flag, value}), 1);
    EXPECT_NE(log("done").find(about), std::string::npos) << log("done");
    EXPECT_EQ(log("done").find("step "), std::string::npos) << "figures of the job before:\n" << log("done");
    for (const auto& [file, bytes] : before) EXPECT_EQ(bytes_of(home_ / "done/run" / file), bytes) << flag << file;
  };
  expect_untouched("--data_path", "typo.jsonl", "typo.jsonl");
  expect_untouched("--eval_path", "typo.jsonl", "typo.jsonl");
  expect_untouched("--device", "abacus", "--device");
  expect_untouched("--from_weight", "nowhere", "nowhere");
}

TEST_F(JobProcesses, AStoppedJobGoesOnToTheSameBits) {
  const std::vector<std::string> settings{"--epochs", "200", "--batch_size", "4", "--nproc", "2"};
  ASSERT_EQ(run("whole", settings), 0) << log("whole");
  Process job = start("stopped", settings);
  ASSERT_TRUE(reached("stopped", 5)) << log("stopped");
  job.signal(SIGINT);
  ASSERT_EQ(end(std::move(job), "stopped"), 0) << log("stopped");
  ASSERT_NE(log("stopped").find("--from_resume 1"), std::string::npos) << log("stopped");
  std::vector<std::string> resume = settings;
  resume.insert(resume.end(), {"--from_resume", "1"});
  ASSERT_EQ(run("stopped", resume), 0) << log("stopped");
  const StateDict whole = weights("whole"), resumed = weights("stopped");
  for (const auto& [name, value] : whole) EXPECT_TRUE(at::equal(value, resumed.at(name))) << name;
}

// Two processes did one batch of four samples each of the second epoch: two batches of one process.
TEST_F(JobProcesses, AnotherNumberOfProcessesGoesOnWhereTheDataIs) {
  ASSERT_EQ(run("changed", {"--epochs", "3", "--batch_size", "4", "--nproc", "2", "--max_steps", "3"}), 0)
      << log("changed");
  ASSERT_EQ(run("changed", {"--epochs", "3", "--batch_size", "4", "--from_resume", "1"}), 0) << log("changed");
  EXPECT_NE(log("changed").find("going on after epoch 2, step 2"), std::string::npos) << log("changed");
  EXPECT_EQ(read_metrics(home_ / "changed/run/metrics.jsonl").back().step, 12U);
}

TEST_F(JobProcesses, ARankThatMakesNoSenseIsNamed) {
  Process job = Process::spawn({.argv = {TROUPE_PROGRAM, "pretrain"},
                                .env = {{"RANK", "2"}, {"WORLD_SIZE", "2"}, {"MASTER_PORT", "1"}},
                                .log_path = home_ / "log"});
  fs::create_directories(home_ / "none");
  EXPECT_EQ(end(std::move(job), "none"), 1);
  EXPECT_NE(tail(home_ / "log", 3).find("RANK is 2 of WORLD_SIZE 2"), std::string::npos) << tail(home_ / "log", 3);
}

}  // namespace
}  // namespace troupe
