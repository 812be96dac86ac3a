#include "launcher/play.hpp"

#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "actors/supervisor.hpp"
#include "core/metrics/report.hpp"
#include "core/metrics/summary.hpp"
#include "launcher/run_display.hpp"
#include "launcher/run_folder.hpp"
#include "launcher/spawn.hpp"
#include "launcher/topology.hpp"

namespace troupe {
namespace {

constexpr int kForced = 130;

// What a signal handler may touch.
std::atomic<int> stop_requests{0};
std::atomic<Supervisor*> running_supervisor{nullptr};

void on_stop_signal(int) {
  const int count = ++stop_requests;
  if (Supervisor* supervisor = running_supervisor) {
    supervisor->request_stop("on request");
  } else if (count >= 2) {  // one process: nobody else could end it
    restore_terminal();
    _exit(kForced);
  }
}

void catch_stop_signals() {
  stop_requests = 0;
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

// Says once what a stop request leads to.
class StopNotice {
 public:
  void tell(RunDisplay& display) {
    const int count = stop_requests;
    if (count >= 1 && told_ < 1)
      display.event("stopping: the step in work is finished and a checkpoint written; once more stops at once");
    if (count >= 2 && told_ < 2) display.event("stopping at once");
    told_ = std::max(told_, count);
  }

 private:
  int told_ = 0;
};

int supervise(const Topology& topology, const RunFile& run, const std::filesystem::path& run_folder,
              RunDisplay& display) {
  StopNotice notice;
  SupervisorOptions options = supervisor_options(topology, run, run_folder);
  options.on_status = [&](const RunStatus& status) {
    notice.tell(display);
    display.status(status);
  };
  options.on_event = [&](const std::string& line) {
    notice.tell(display);
    display.event(line);
  };
  Supervisor supervisor(std::move(options));
  running_supervisor = &supervisor;
  if (stop_requests > 0) supervisor.request_stop("on request");
  const int code = supervisor.run();
  running_supervisor = nullptr;
  return code;
}

int play_in_one_process(const std::filesystem::path& run_folder, const RoleCalls& calls, RunDisplay& display) {
  StopNotice notice;
  StandaloneHooks hooks;
  hooks.on_status = [&](const RunStatus& status) {
    notice.tell(display);
    display.status(status);
  };
  hooks.on_event = [&](const std::string& line) { display.event(line); };
  hooks.stop_requests = &stop_requests;
  return calls.standalone(run_folder, hooks);
}

std::string state_after(int code) {
  return code != 0 ? "failed" : stop_requests > 0 ? "stopped" : "done";
}

// summary.json, run.json, report.html, and the closing lines. A failure here must not hide how the run ended.
void close_run(RunFile run, const std::filesystem::path& run_folder, int code, double wall_s) {
  run.state = state_after(code);
  try {
    const nlohmann::json before = read_summary(run_folder);
    nlohmann::json closing{{"state", run.state}, {"wall_s", before.value("wall_s", 0.0) + wall_s}};
    if (std::filesystem::exists(run_folder / "metrics.jsonl")) {
      const auto steps = read_metrics(run_folder / "metrics.jsonl");
      closing["steps"] = steps.empty() ? 0 : steps.back().step;
    }
    merge_summary(run_folder, closing);
    write_run_file(run, run_folder);
    if (std::filesystem::exists(run_folder / "metrics.jsonl")) write_report(run_folder);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "troupe: %s\n", error.what());
  }
}

void print_closing(const std::filesystem::path& run_folder) {
  const nlohmann::json summary = read_summary(run_folder);
  const auto share = [&](const char* key) { return summary.value(key, 0.0) * 100; };
  std::printf("%s after %llu steps", summary.value("state", "").c_str(),
              static_cast<unsigned long long>(summary.value("steps", uint64_t{0})));
  if (summary.contains("accuracy_after"))
    std::printf(", held-out accuracy %.1f %% -> %.1f %%", share("accuracy_before"), share("accuracy_after"));
  std::printf("\n");
  if (summary.value("state", "") != "done") std::printf("go on with it: troupe resume %s\n", run_folder.c_str());
  std::printf("run folder: %s (report.html, summary.json, logs/)\n", run_folder.c_str());
  std::fflush(stdout);
}

}  // namespace

int play(const Topology& topology, const std::filesystem::path& run_folder, bool plain, const RoleCalls& calls) {
  const RunLock lock(run_folder);
  std::optional<RunFile> before;
  if (std::filesystem::exists(run_folder / "run.json")) before = read_run_file(run_folder);
  const SocketFolder sockets;
  const RunFile run = make_run_file(topology, run_folder, sockets.path(), before);
  write_run_topology(topology, run_folder);
  write_run_file(run, run_folder);

  const auto started = std::chrono::steady_clock::now();
  int code = 1;
  {
    RunDisplay display(topology, run_folder, plain);
    display.event("run " + run.name + " in " + run_folder.string());
    for (const NodeSection& node : topology.nodes)
      for (const std::string& instance : instances_of(node))
        if (node.external) display.event(instance + " is external; expected at " + run.endpoints.at(instance));
    catch_stop_signals();
    try {
      code = topology.run.mode == RunMode::kStandalone ? play_in_one_process(run_folder, calls, display)
                                                       : supervise(topology, run, run_folder, display);
    } catch (const std::exception& error) {
      running_supervisor = nullptr;
      display.event(std::string("troupe: ") + error.what());
    }
    display.finish();
  }
  close_run(run, run_folder, code, std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count());
  print_closing(run_folder);
  return stop_requests >= 2 ? kForced : code == 0 ? 0 : 1;
}

}  // namespace troupe
