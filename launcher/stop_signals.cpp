#include "launcher/stop_signals.hpp"

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "actors/supervisor.hpp"
#include "core/metrics/report.hpp"
#include "core/metrics/summary.hpp"
#include "launcher/run_display.hpp"

namespace troupe {
namespace {

constexpr int kForced = 130;

// What a signal handler may touch.
std::atomic<int> requests{0};
std::atomic<int> last_request{2};  // the process ends with it
std::atomic<Supervisor*> running_supervisor{nullptr};

void on_stop_signal(int) {
  const int count = ++requests;
  if (Supervisor* supervisor = running_supervisor) {
    supervisor->request_stop("on request");
  } else if (count >= last_request) {  // one process: nobody else could end it
    end_by_force();
  }
}

}  // namespace

void catch_stop_signals(SecondStop second) {
  requests = 0;
  last_request = second == SecondStop::kHandler ? 2 : 3;
  struct sigaction action {};
  action.sa_handler = on_stop_signal;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  struct sigaction hang_up {};
  sigaction(SIGHUP, nullptr, &hang_up);
  if (hang_up.sa_handler != SIG_IGN) sigaction(SIGHUP, &action, nullptr);  // nohup: a closed terminal is no reason
  signal(SIGPIPE, SIG_IGN);                                                // a closed output is no reason to end a run
}

const std::atomic<int>& stop_requests() {
  return requests;
}

void end_by_force() {
  if (live_terminal()) restore_terminal();
  _exit(kForced);
}

StopsSupervisor::StopsSupervisor(Supervisor& supervisor) {
  running_supervisor = &supervisor;
  if (requests > 0) supervisor.request_stop("on request");
}

StopsSupervisor::~StopsSupervisor() {
  running_supervisor = nullptr;
}

void StopNotice::tell(RunDisplay& display) {
  const int count = requests;
  if (count >= 1 && told_ < 1)
    display.event("stopping: the step in work is finished and a checkpoint written; once more stops at once");
  if (count >= 2 && told_ < 2) display.event("stopping at once");
  told_ = std::max(told_, count);
}

std::string state_after(int code) {
  return code != 0 ? "failed" : requests > 0 ? "stopped" : "done";
}

int exit_code_after(int code) {
  return requests >= 2 ? kForced : code == 0 ? 0 : 1;
}

void close_summary(const std::filesystem::path& run_folder, const std::string& state, double wall_s) {
  try {
    const nlohmann::json before = read_summary(run_folder);
    nlohmann::json closing{{"state", state}, {"wall_s", before.value("wall_s", 0.0) + wall_s}};
    const bool has_steps = std::filesystem::exists(run_folder / "metrics.jsonl");
    if (has_steps) {
      const auto steps = read_metrics(run_folder / "metrics.jsonl");
      closing["steps"] = steps.empty() ? 0 : steps.back().step;
    }
    merge_summary(run_folder, closing);
    if (has_steps) write_report(run_folder);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "troupe: %s\n", error.what());
  }
}

}  // namespace troupe
