// Jobs of several processes, run by the real binary.
#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "actors/process.hpp"
#include "core/io/pth.hpp"
#include "core/metrics/metrics_log.hpp"
#include "roles/tiny_model.hpp"

namespace troupe {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

class JobProcesses : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = "/tmp/troupe-job-test-XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    home_ = name;
    make_tiny_model({.to = home_ / "tiny", .steps = 0, .hidden_size = 32, .num_layers = 1, .seed = 2}, {});
    // Of equal length, so that means over halves are the mean over the whole.
    std::ofstream lines(home_ / "text.jsonl");
    for (int i = 0; i < 16; ++i) lines << "{\"text\": \"line number " << 10 + i << " of the text\"}\n";
  }
  void TearDown() override { fs::remove_all(home_); }

  Process start(const std::string& name, const std::vector<std::string>& more) {
    std::vector<std::string> argv{TROUPE_PROGRAM,
                                  "pretrain",
                                  "--plain",
                                  "--threads",
                                  "1",
                                  "--dtype",
                                  "float32",
                                  "--accumulation_steps",
                                  "1",
                                  "--log_interval",
                                  "1",
                                  "--from_weight"};
    for (const std::string& word :
         {(home_ / "tiny").string(), std::string("--data_path"), (home_ / "text.jsonl").string(),
          std::string("--save_dir"), (home_ / name).string(), std::string("--checkpoint_dir"),
          (home_ / name / "checkpoints").string(), std::string("--run_folder"), (home_ / name / "run").string()})
      argv.push_back(word);
    argv.insert(argv.end(), more.begin(), more.end());
    fs::create_directories(home_ / name);
    return Process::spawn({.argv = argv, .env = thread_environment(1), .log_path = home_ / name / "log"});
  }
  int run(const std::string& name, const std::vector<std::string>& more) { return end(start(name, more), name); }
  int end(Process process, const std::string& name) {
    const auto until = std::chrono::steady_clock::now() + 120s;
    while (std::chrono::steady_clock::now() < until) {
      if (const auto status = process.poll()) {
        EXPECT_EQ(status->signal, 0) << log(name);
        return status->code;
      }
      std::this_thread::sleep_for(10ms);
    }
    ADD_FAILURE() << "still running: " << log(name);
    return -1;
  }
  std::string log(const std::string& name) { return tail(home_ / name / "log", 20); }
  StateDict weights(const std::string& name) { return read_pth(home_ / name / "pretrain_32.pth", at::kFloat); }
  bool reached(const std::string& name, std::size_t steps) {
    for (int i = 0; i < 3000; ++i) {
      const fs::path file = home_ / name / "run" / "metrics.jsonl";
      if (fs::exists(file) && read_metrics(file).size() >= steps) return true;
      std::this_thread::sleep_for(10ms);
    }
    return false;
  }

  fs::path home_;
};

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

TEST_F(JobProcesses, ADeadRankEndsTheJobByName) {
  Process job = start("dead", {"--epochs", "100000", "--batch_size", "4", "--nproc", "2"});
  ASSERT_TRUE(reached("dead", 3)) << log("dead");
  kill(child_of(job.pid()), SIGKILL);
  EXPECT_EQ(end(std::move(job), "dead"), 1);
  EXPECT_NE(log("dead").find("rank 1 ended with signal 9"), std::string::npos) << log("dead");
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
