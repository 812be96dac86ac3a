// One child process: fork and exec, never a shell. The child dies with its parent (PR_SET_PDEATHSIG), leads a process
// group of its own (a Ctrl-C in the terminal reaches the launcher alone), and writes stdout and stderr to a log file.
#pragma once

#include <sched.h>
#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "actors/descriptor.hpp"
#include "protocol/fields.hpp"

namespace troupe {

struct ProcessOptions {
  std::vector<std::string> argv{};           // argv[0] is a path
  std::map<std::string, std::string> env{};  // added to the parent's; an empty value removes the variable
  std::string log_path{};                    // appended to, mode 0600; empty: inherits stdout and stderr
  std::vector<int> cpus{};                   // allowed cores; empty: all
  static constexpr std::tuple kFields{Field{"argv", &ProcessOptions::argv}, Field{"env", &ProcessOptions::env},
                                      Field{"log_path", &ProcessOptions::log_path},
                                      Field{"cpus", &ProcessOptions::cpus}};
};
TROUPE_FIELDS_COMPLETE(ProcessOptions);

// How a process ended.
struct ExitStatus {
  int code = 0;  // exit code when signal is 0
  int signal = 0;
  bool clean() const { return code == 0 && signal == 0; }
  std::string text() const;  // "exit code 3", "signal 9 (Killed)"
};

// Environment of a role with `threads` working threads: OMP_NUM_THREADS and MKL_NUM_THREADS, OMP_WAIT_POLICY=passive
// and GOMP_SPINCOUNT=0, because spinning threads of one role steal the cores of the others.
std::map<std::string, std::string> thread_environment(int threads);

// Owned by the thread that spawned it: PDEATHSIG is bound to that thread, which must live as long as the child should.
class Process {
 public:
  // Throws std::runtime_error naming argv[0] when it can't be started (also when exec fails).
  static Process spawn(const ProcessOptions& options);
  static Process adopt(pid_t child);  // one that was started otherwise, and not waited for (zygote.hpp)
  Process(Process&& other) noexcept
      : pid_(std::exchange(other.pid_, -1)), pidfd_(std::move(other.pidfd_)), status_(other.status_) {}
  Process& operator=(Process&& other) noexcept;
  ~Process();  // SIGKILL and wait when it still runs

  pid_t pid() const { return pid_; }
  int pidfd() const { return pidfd_.get(); }  // readable once the process has ended
  void signal(int number);                    // to the process; nothing when it has ended
  // Its exit status once it has ended; what it left behind of its process group is killed then.
  std::optional<ExitStatus> poll();

 private:
  Process(pid_t pid, Descriptor pidfd) : pid_(pid), pidfd_(std::move(pidfd)) {}
  pid_t pid_ = -1;
  Descriptor pidfd_;
  std::optional<ExitStatus> status_;
};

// What a new process does between its fork and its program: it takes its group, its parent's fate, signals, cores, and
// stdin, stdout and stderr.
class ChildPlace {
 public:
  explicit ChildPlace(const ProcessOptions& options, pid_t parent);  // opens the log; throws std::runtime_error
  // In the child. Async-signal-safe. False with errno set when it can't; ends the process when the parent has gone.
  bool enter() const noexcept;

 private:
  cpu_set_t cpus_;
  const bool pin_;
  const pid_t parent_;
  Descriptor null_, log_;
};

// The last `lines` lines of a file after its first `skipped` bytes, at most 16 KiB; empty when it can't be read.
std::string tail(const std::string& path, int lines, std::uintmax_t skipped = 0);

}  // namespace troupe
