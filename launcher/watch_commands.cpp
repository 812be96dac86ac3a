#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "actors/handle.hpp"
#include "core/metrics/report.hpp"
#include "core/metrics/summary.hpp"
#include "launcher/commands.hpp"
#include "launcher/run_folder.hpp"
#include "launcher/run_view.hpp"

namespace troupe {
namespace {

using namespace std::chrono_literals;

constexpr auto kTellEvery = 10s;

// Asks the run's supervisor; nothing when it does not answer (a run in one process has none).
std::optional<RunStatus> ask_supervisor(const RunFile& run, const std::filesystem::path& folder) {
  // Seconds since the run's start: a later question must not look like an earlier life of its asker.
  const auto since =
      std::filesystem::file_time_type::clock::now() - std::filesystem::last_write_time(folder / "run.json");
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(since).count();
  const uint64_t incarnation = static_cast<uint64_t>(std::max<int64_t>(seconds, 0)) + 1;
  SocketMailbox mailbox(node_options(run, std::string(kStatusNode), incarnation, run.epoch, false));
  try {
    return Handle<SupervisorFace>(mailbox, "supervisor").ask(AskRun{}, {.deadline = 3s, .what = "status"}).get();
  } catch (const RemoteFailure&) {
    return std::nullopt;
  }
}

// Of a run in one process, which nobody outside can ask: its nodes, and how old its last record is.
void print_one_process(const Topology& topology, const std::filesystem::path& folder) {
  std::string nodes;
  for (const NodeSection& node : topology.nodes)
    for (const std::string& instance : instances_of(node)) nodes += (nodes.empty() ? "" : ", ") + instance;
  std::printf("  one process plays %s\n", nodes.c_str());
  std::error_code missing;
  const auto written = std::filesystem::last_write_time(folder / "metrics.jsonl", missing);
  if (missing) return void(std::printf("  no step has ended yet\n"));
  const auto age = std::filesystem::file_time_type::clock::now() - written;
  std::printf("  its last step ended %lld s ago\n",
              static_cast<long long>(std::chrono::duration_cast<std::chrono::seconds>(age).count()));
}

int print_status(const std::filesystem::path& folder) {
  const auto pid = launcher_of(folder);
  const RunFile run = read_run_file(folder);
  const Topology topology = read_run_topology(folder);
  const ViewTime now = std::chrono::steady_clock::now();
  RunView view(topology, folder, now);
  const auto steps = view.refresh();
  std::printf("run %s: %s", run.name.c_str(),
              pid ? ("running as process " + std::to_string(*pid)).c_str()
                  : (run.state == "running" ? "died without a word" : run.state.c_str()));
  std::printf(", started %s (start %llu)\n", run.started.c_str(), static_cast<unsigned long long>(run.starts));
  if (!steps.empty()) std::printf("%s\n", view.step_line(steps.back()).c_str());
  const bool supervised = pid && topology.run.mode == RunMode::kProcesses;
  if (const auto status = supervised ? ask_supervisor(run, folder) : std::nullopt) {
    for (const RoleStatus& node : status->nodes) {
      const auto restarts = status->restarts.find(node.node);
      std::printf("  %-16s %-12s restarts %-3llu %s\n", node.node.c_str(), fit(node.phase, 12, true).c_str(),
                  static_cast<unsigned long long>(restarts == status->restarts.end() ? 0 : restarts->second),
                  fit(node.detail, 200, true).c_str());
    }
  } else if (supervised) {
    std::printf("  its supervisor does not answer\n");
  } else if (pid) {
    print_one_process(topology, folder);
  } else if (!pid && run.state != "done") {
    const bool failed = run.state == "failed";
    const nlohmann::json cause = read_summary(folder).value("cause", nlohmann::json());
    if (failed && cause.is_string()) std::printf("  cause: %s\n", cause.get<std::string>().c_str());
    std::printf("  %s: troupe resume %s\n", failed ? "after the cause is removed" : "go on with it", folder.c_str());
  }
  return 0;
}

int stop_run(const std::filesystem::path& folder, bool now) {
  const auto pid = launcher_of(folder);
  if (!pid) {
    std::printf("run %s is not running\n", folder.filename().c_str());
    return 0;
  }
  for (int i = 0; i < (now ? 2 : 1); ++i) {
    if (kill(*pid, SIGINT) != 0) throw std::runtime_error("cannot signal process " + std::to_string(*pid));
    std::this_thread::sleep_for(100ms);  // two signals at once would arrive as one
  }
  std::printf("stopping run %s (process %d)%s\n", folder.filename().c_str(), *pid,
              now ? " at once" : ": it finishes its step and writes a checkpoint");
  std::fflush(stdout);
  const auto asked = std::chrono::steady_clock::now();
  for (auto tell = asked + kTellEvery; launcher_of(folder) == pid; std::this_thread::sleep_for(100ms)) {
    const auto time = std::chrono::steady_clock::now();
    if (time < tell) continue;
    tell += kTellEvery;
    std::printf("still stopping after %lld s (troupe status tells at what; --now ends it at once)\n",
                static_cast<long long>(std::chrono::round<std::chrono::seconds>(time - asked).count()));
    std::fflush(stdout);
  }
  std::printf("stopped\n");
  return 0;
}

}  // namespace

void add_watch_commands(CLI::App& app, int& exit_code) {
  struct Arguments {
    std::string run;
    bool now = false;
  };
  const auto arguments = std::make_shared<Arguments>();
  const auto folder = [arguments](bool or_job = false) {
    const std::filesystem::path path = std::filesystem::absolute(arguments->run).lexically_normal();
    if (!or_job || !std::filesystem::exists(path / "job.json")) require_run(path);
    return path.has_filename() ? path : path.parent_path();
  };

  CLI::App* status = app.add_subcommand("status", "what a run is doing");
  status->add_option("RUN", arguments->run, "the run's folder")->required();
  status->footer("Example:\n  troupe status runs/RUN");
  status->callback([folder, &exit_code] { exit_code = print_status(folder()); });

  CLI::App* stop = app.add_subcommand("stop", "stop a run cleanly, with a checkpoint, and wait for its end");
  stop->add_option("RUN", arguments->run, "the run's folder")->required();
  stop->add_flag("--now", arguments->now, "end its processes at once; the journal keeps what was done");
  stop->footer("Example:\n  troupe stop runs/RUN && troupe resume runs/RUN");
  stop->callback([folder, arguments, &exit_code] { exit_code = stop_run(folder(), arguments->now); });

  CLI::App* report = app.add_subcommand("report", "draw a run's or a job's report.html again, also while it runs");
  report->add_option("RUN", arguments->run, "the folder of the run or of the job")->required();
  report->footer("Example:\n  troupe report runs/RUN");
  report->callback([folder, &exit_code] {
    const std::filesystem::path drawn = folder(true);
    write_report(drawn);
    std::printf("%s\n", (drawn / "report.html").c_str());
    exit_code = 0;
  });
}

}  // namespace troupe
