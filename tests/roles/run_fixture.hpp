// Real runs of the real binary on a tiny model made once per test process: started as a user starts them, watched
// through their output, killed by pid.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "actors/process.hpp"
#include "protocol/types.hpp"

namespace troupe {

// A tiny model and its prompts in a folder of its own; the same for all tests of the process.
struct TinyWorld {
  std::filesystem::path folder;
  static const TinyWorld& get();
};

// A `troupe run` or `troupe resume` and its folder.
class TroupeRun {
 public:
  // `name` is unique in the test; `sets` are --set arguments on top of the world's model and prompts; `launch` comes
  // before the command; `faults` is TROUPE_FAULTS of the launcher and its children (actors/fault_hooks.hpp); the run's
  // folder is made in `parent`, or in the world's.
  TroupeRun(std::string name, const std::string& config, const std::vector<std::string>& sets,
            std::vector<std::string> launch = {}, const std::string& faults = "",
            const std::filesystem::path& parent = {});
  TroupeRun(std::string name, const std::string& config, const std::vector<std::string>& sets,
            const std::string& faults, const std::filesystem::path& parent = {})
      : TroupeRun(std::move(name), config, sets, std::vector<std::string>(), faults, parent) {}
  ~TroupeRun();  // kills what still runs
  void resume(const std::vector<std::string>& more = {}, const std::string& faults = "");

  const std::filesystem::path& folder() const { return folder_; }
  std::string output() const;
  std::string log_of(const std::string& instance) const;
  std::vector<std::string> logs() const;

  // Waits until the output holds `text` (after the first `from` bytes); fails the test after `seconds`.
  bool wait_for(const std::string& text, int seconds = 60, std::size_t from = 0) const;
  // Waits until step `step` has its line in metrics.jsonl.
  bool wait_for_step(int step, int seconds = 60) const;
  // Lines of metrics.jsonl.
  std::size_t steps_ended() const;
  // The pid of the newest incarnation of a node.
  pid_t pid_of(const std::string& instance) const;
  void signal(int number) { launcher_->signal(number); }
  pid_t launcher_pid() const { return launcher_->pid(); }
  // Waits for the end; the exit code, or -signal. Fails the test after `seconds`.
  int wait(int seconds = 120);

  // What came out: SHA-256 of the exported weights, "" when there is none.
  std::string weights_digest() const;
  // The journal's batches. Checks that their draws are 0, 1, 2 ... each in exactly one step.
  std::vector<Experience> ledger(int steps, int prompts_per_update, int group_size) const;

 private:
  void start(std::vector<std::string> arguments, const std::string& faults);
  const std::vector<std::string> launch_;
  std::filesystem::path folder_;
  std::filesystem::path output_;
  std::optional<Process> launcher_;
};

// The undisturbed run of `steps` steps that faulty ones are compared with; made once per test process.
const TroupeRun& undisturbed(int steps);

}  // namespace troupe
