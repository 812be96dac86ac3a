// The binary under test (TROUPE_PROGRAM) as a user calls it: arguments, what it reads from stdin, what it says.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "tests/core/metrics/scratch_folder.hpp"

namespace troupe {

struct Ended {
  int code = -1;  // or -signal
  std::string out, err;
};

class Command {
 public:
  explicit Command(std::vector<std::string> arguments, const std::filesystem::path& folder = "/") {
    arguments.insert(arguments.begin(), TROUPE_PROGRAM);
    std::vector<char*> argv;
    for (std::string& word : arguments) argv.push_back(word.data());
    argv.push_back(nullptr);
    const std::string out = scratch_ / "out", err = scratch_ / "err";
    int in[2];
    if (pipe2(in, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
    child_ = fork();
    if (child_ == 0) {
      if (dup2(in[0], 0) < 0 || chdir(folder.c_str()) != 0 || !freopen(out.c_str(), "w", stdout) ||
          !freopen(err.c_str(), "w", stderr))
        _exit(126);
      execv(argv[0], argv.data());
      _exit(127);
    }
    close(in[0]);
    in_ = in[1];
  }
  ~Command() {
    end_input();
    if (child_ > 0) {
      ::kill(child_, SIGKILL);
      waitpid(child_, nullptr, 0);
    }
  }

  void write(const std::string& text) {
    ASSERT_EQ(::write(in_, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  void end_input() {
    if (in_ >= 0) close(in_);
    in_ = -1;
  }
  pid_t pid() const { return child_; }
  void signal(int number) { ::kill(child_, number); }
  std::string out() const { return text_of(scratch_ / "out"); }
  std::string err() const { return text_of(scratch_ / "err"); }

  // Until stderr holds `text` `times`; fails the test after a minute.
  void wait_for_err(const std::string& text, int times = 1) {
    for (int i = 0; i < 3000; ++i, std::this_thread::sleep_for(std::chrono::milliseconds(20))) {
      int found = 0;
      const std::string said = err();
      for (size_t at = said.find(text); at != said.npos; at = said.find(text, at + 1)) ++found;
      if (found >= times) return;
    }
    ADD_FAILURE() << "no '" << text << "' in: " << err();
  }

  // With its input still open.
  int wait_for_end() {
    int status = 0;
    waitpid(child_, &status, 0);
    child_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  Ended wait() {
    end_input();
    const int code = wait_for_end();
    return {code, out(), err()};
  }

 private:
  ScratchFolder scratch_;
  pid_t child_ = -1;
  int in_ = -1;
};

inline Ended call(const std::vector<std::string>& arguments, const std::string& input = "",
                  const std::filesystem::path& folder = "/") {
  Command command(arguments, folder);
  command.write(input);
  return command.wait();
}

}  // namespace troupe
