// Ctrl-C and its kin, and how what they stop is brought to an end: a first request stops cleanly, a second at once.
#pragma once

#include <atomic>
#include <filesystem>
#include <string>

namespace troupe {

class RunDisplay;
class Supervisor;

// Who ends the process at the second request, where no supervisor does.
enum class SecondStop {
  kHandler,  // the signal handler, at once
  kCaller,   // who watches stop_requests() and has something to close; the handler at a third
};
// Counts SIGINT, SIGTERM and (unless it is ignored: nohup) SIGHUP from now on, from 0; ignores SIGPIPE.
void catch_stop_signals(SecondStop second = SecondStop::kHandler);
const std::atomic<int>& stop_requests();
// Ends the process with 130, the terminal as it was. Also in a signal handler.
[[noreturn]] void end_by_force();

// While it lives, stop requests go to the supervisor too; one that came before is passed on.
class StopsSupervisor {
 public:
  explicit StopsSupervisor(Supervisor& supervisor);
  ~StopsSupervisor();
  StopsSupervisor(const StopsSupervisor&) = delete;
  StopsSupervisor& operator=(const StopsSupervisor&) = delete;
};

// Says once what a stop request leads to.
class StopNotice {
 public:
  void tell(RunDisplay& display);

 private:
  int told_ = 0;
};

// "done", "stopped" or "failed", from the exit code of what ran and the requests there were.
std::string state_after(int code);
// The launcher's own: 130 when it was forced.
int exit_code_after(int code);

// Sets state, steps and wall_s (added up over starts) in summary.json and draws report.html. Prints what fails.
void close_summary(const std::filesystem::path& run_folder, const std::string& state, double wall_s);

}  // namespace troupe
