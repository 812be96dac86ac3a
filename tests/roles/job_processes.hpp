// Jobs of several processes on a tiny model, run by the real binary.
#pragma once

#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "actors/process.hpp"
#include "core/io/pth.hpp"
#include "core/metrics/metrics_log.hpp"
#include "roles/tiny_model.hpp"

namespace troupe {

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
  void TearDown() override { std::filesystem::remove_all(home_); }

  // `before` stands in front of the program's own words, `environment` is added to this process's; what it says goes to
  // NAME/<log>.
  Process start(const std::string& name, const std::vector<std::string>& more,
                const std::vector<std::string>& before = {}, const std::map<std::string, std::string>& environment = {},
                const std::string& log = "log") {
    std::vector<std::string> argv = before;
    for (const char* word : {TROUPE_PROGRAM, "pretrain", "--plain", "--threads", "1", "--dtype", "float32",
                             "--accumulation_steps", "1", "--log_interval", "1", "--from_weight"})
      argv.push_back(word);
    for (const std::string& word :
         {(home_ / "tiny").string(), std::string("--data_path"), (home_ / "text.jsonl").string(),
          std::string("--save_dir"), (home_ / name).string(), std::string("--checkpoint_dir"),
          (home_ / name / "checkpoints").string(), std::string("--run_folder"), (home_ / name / "run").string()})
      argv.push_back(word);
    argv.insert(argv.end(), more.begin(), more.end());
    std::filesystem::create_directories(home_ / name);
    std::map<std::string, std::string> all = thread_environment(1);
    all.insert(environment.begin(), environment.end());
    return Process::spawn({.argv = argv, .env = all, .log_path = home_ / name / log});
  }
  int run(const std::string& name, const std::vector<std::string>& more) { return end(start(name, more), name); }
  int end(Process process, const std::string& name) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(120);
    while (std::chrono::steady_clock::now() < until) {
      if (const auto status = process.poll()) {
        EXPECT_EQ(status->signal, 0) << log(name);
        return status->code;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ADD_FAILURE() << "still running: " << log(name);
    return -1;
  }
  std::string log(const std::string& name) { return tail(home_ / name / "log", 20); }
  StateDict weights(const std::string& name) { return read_pth(home_ / name / "pretrain_32.pth", at::kFloat); }
  bool reached(const std::string& name, std::size_t steps) {
    for (int i = 0; i < 3000; ++i) {
      const std::filesystem::path file = home_ / name / "run" / "metrics.jsonl";
      if (std::filesystem::exists(file) && read_metrics(file).size() >= steps) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }

  std::filesystem::path home_;
};

}  // namespace troupe
