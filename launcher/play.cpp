#include "launcher/play.hpp"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "actors/supervisor.hpp"
#include "actors/zygote.hpp"
#include "core/metrics/metrics_log.hpp"
#include "core/metrics/summary.hpp"
#include "launcher/run_display.hpp"
#include "launcher/run_folder.hpp"
#include "launcher/spawn.hpp"
#include "launcher/stop_signals.hpp"
#include "launcher/topology.hpp"

namespace troupe {
namespace {

int supervise(const Topology& topology, const RunFile& run, const std::filesystem::path& run_folder, Zygote& zygote,
              RunDisplay& display, std::string& cause) {
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
  options.spawn = [&zygote](const ProcessOptions& process) {
    if (process.argv[0] == kOwnProgram)
      if (auto child = zygote.spawn(process)) return std::move(*child);
    return Process::spawn(process);
  };
  Supervisor supervisor(std::move(options));
  const StopsSupervisor stops(supervisor);
  const int code = supervisor.run();
  cause = supervisor.cause();
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
  hooks.stop_requests = &stop_requests();
  return calls.standalone(run_folder, hooks);
}

// summary.json, run.json, report.html. A failure here must not hide how the run ended.
void close_run(RunFile run, const std::filesystem::path& run_folder, int code, const std::string& cause,
               double wall_s) {
  run.state = state_after(code);
  try {
    write_run_file(run, run_folder);
    merge_summary(run_folder, {{"cause", cause.empty() ? nlohmann::json() : nlohmann::json(cause)}});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "troupe: %s\n", error.what());
  }
  close_summary(run_folder, run.state, wall_s);
}

void print_closing(const std::filesystem::path& run_folder) {
  const nlohmann::json summary = read_summary(run_folder);
  const auto share = [&](const char* key) { return summary.value(key, 0.0) * 100; };
  std::printf("%s after %llu steps", summary.value("state", "").c_str(),
              static_cast<unsigned long long>(summary.value("steps", uint64_t{0})));
  if (summary.contains("accuracy_after"))
    std::printf(", held-out accuracy %.1f %% -> %.1f %%", share("accuracy_before"), share("accuracy_after"));
  std::printf("\n");
  const std::string state = summary.value("state", "");
  if (state != "done")
    std::printf("%s: troupe resume %s\n", state == "failed" ? "after the cause is removed" : "go on with it",
                run_folder.c_str());
  std::printf("run folder: %s (report.html, summary.json, logs/)\n", run_folder.c_str());
  std::fflush(stdout);
}

}  // namespace

int play(const Topology& topology, const std::filesystem::path& run_folder, bool plain, const RoleCalls& calls,
         const Vocabulary& words) {
  std::optional<Zygote> zygote;  // first of all: there is one thread, and nothing open
  if (topology.run.mode == RunMode::kProcesses)
    zygote.emplace([&](int argc, char** argv) { return command_line(argc, argv, calls, words); });
  const RunLock lock(run_folder);
  std::optional<RunFile> before;
  if (std::filesystem::exists(run_folder / "run.json")) before = read_run_file(run_folder);
  if (before) remove_left_sockets(*before);
  const SocketFolder sockets;
  const RunFile run = make_run_file(topology, run_folder, sockets.path(), before);
  write_run_topology(topology, run_folder);
  write_run_file(run, run_folder);

  const auto started = std::chrono::steady_clock::now();
  int code = 1;
  std::string cause;
  {
    RunDisplay display(topology, run_folder, plain);
    const bool damaged = before && cut_damaged_metrics(run_folder / "metrics.jsonl");
    if (before) display.skip_earlier_steps();  // of a run that goes on
    display.event("run " + run.name + " in " + run_folder.string());
    if (damaged) display.event("metrics.jsonl was damaged; its steps are told again from there, by the journal");
    for (const NodeSection& node : topology.nodes)
      for (const std::string& instance : instances_of(node))
        if (node.external) display.event(instance + " is external; expected at " + run.endpoints.at(instance));
    catch_stop_signals();
    try {
      code = zygote ? supervise(topology, run, run_folder, *zygote, display, cause)
                    : play_in_one_process(run_folder, calls, display);
    } catch (const std::exception& error) {
      cause = error.what();
      display.event("troupe: " + cause);
    }
    display.finish();
  }
  close_run(run, run_folder, code, cause,
            std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count());
  print_closing(run_folder);
  return exit_code_after(code);
}

}  // namespace troupe
