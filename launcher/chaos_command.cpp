#include <CLI/CLI.hpp>
#include <cstdio>
#include <ctime>
#include <memory>
#include <nlohmann/json.hpp>

#include "launcher/chaos.hpp"
#include "launcher/commands.hpp"
#include "launcher/topology.hpp"

namespace troupe {
namespace {

// In front of the user's own, which win: restarts without end, soon forgotten, and a lease that finds a stopped process
// while the reader still waits.
std::vector<std::string> with_patience(const std::vector<std::string>& sets) {
  std::vector<std::string> out{"restarts.limit=1000", "restarts.window_s=1", "restarts.lease_s=3"};
  out.insert(out.end(), sets.begin(), sets.end());
  return out;
}

void print_result(const ChaosOptions& options, const ChaosResult& r) {
  const double median = percentile(r.recovery_s, 0.5), p90 = percentile(r.recovery_s, 0.9);
  const double most = percentile(r.recovery_s, 1);
  const auto n = [](int64_t value) { return static_cast<long long>(value); };
  std::printf("\n  rounds                     %lld\n", n(r.rounds));
  std::printf("  kills                      %lld (%lld at fault points, %lld power cuts)\n", n(r.kills),
              n(r.at_fault_points), n(r.power_cuts));
  std::printf("  stops                      %lld\n", n(r.stops));
  if (r.reference.empty())
    std::printf("  same bits as undisturbed   not compared: run.deterministic is false\n");
  else
    std::printf("  same bits as undisturbed   %lld of %lld\n", n(r.identical), n(r.rounds));
  std::printf("  fault to next finished step  median %.2f s, p90 %.2f s, max %.2f s (%zu faults)\n", median, p90, most,
              r.recovery_s.size());
  std::printf("  a round took               %.1f s%s\n", r.faulty_s,
              r.undisturbed_s > 0 ? (", undisturbed " + std::to_string(r.undisturbed_s) + " s").c_str() : "");
  std::printf("  violations                 %zu\n", r.violations.size());
  for (const std::string& line : r.violations) std::printf("    %s\n", line.c_str());
  const nlohmann::json line{{"seed", options.seed},
                            {"rounds", r.rounds},
                            {"identical", r.identical},
                            {"kills", r.kills},
                            {"at_fault_points", r.at_fault_points},
                            {"power_cuts", r.power_cuts},
                            {"stops", r.stops},
                            {"recovery_s", {{"median", median}, {"p90", p90}, {"max", most}}},
                            {"recoveries", r.recovery_s.size()},
                            {"round_s", r.faulty_s},
                            {"undisturbed_s", r.undisturbed_s},
                            {"reference", r.reference},
                            {"violations", r.violations}};
  std::printf("%s\n", line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
}

}  // namespace

void add_chaos_command(CLI::App& app, const Vocabulary& words, int& exit_code) {
  struct Arguments {
    ChaosOptions options;
    bool keep = false;
  };
  const auto arguments = std::make_shared<Arguments>();
  ChaosOptions& options = arguments->options;
  CLI::App* command =
      app.add_subcommand("chaos", "kill a run's processes again and again, and prove that it shows nowhere");
  command->add_option("TOPOLOGY", options.topology_file, "the topology file (docs/topology.md)")->required();
  command->add_option("--seed", options.seed, "decides who is hit, how, and how long after the last fault")
      ->capture_default_str();
  command->add_option("--kills", options.kills, "kills in all, over as many whole runs as it takes")
      ->check(CLI::Range(0, 1'000'000))
      ->capture_default_str();
  command->add_option("--stops", options.stops, "processes stopped (SIGSTOP) in all: the lease must find them")
      ->check(CLI::Range(0, 1'000'000))
      ->capture_default_str();
  command->add_option("--every", options.every_s, "mean seconds between two faults")
      ->check(CLI::Range(0.01, 3600.0))
      ->capture_default_str();
  command->add_option("--power-cuts", options.power_cuts, "share of the kills that hit the launcher and all with it")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command->add_option("--fault-points", options.fault_points, "share of the kills at named points of the code")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command->add_option("--round-limit", options.round_limit_s, "seconds after which a run counts as hung")
      ->capture_default_str();
  command->add_option("--reference", options.reference, "digest of an undisturbed run, to make none");
  command->add_option("--set", options.sets, "override a value of the topology (may be repeated)")
      ->type_name("PATH=VALUE")
      ->allow_extra_args(false);
  command->add_option("--folder", options.folder, "where the runs go; default: run.folder/chaos-SEED-TIME");
  command->add_flag("--keep", arguments->keep, "keep the runs' folders also when all went well");
  command->footer(
      "Plays the topology once undisturbed, then under faults until all are dealt: kill -9 of a random role (the\n"
      "conductor too) at a random moment or at a named point of its code, SIGSTOP, and now and then all processes at\n"
      "once with `troupe resume` after. After each run: every sample in exactly one step, no step lost or doubled, "
      "every\n"
      "checkpoint whole (troupe journal --check), and the last checkpoint's bits equal to the undisturbed run's.\n"
      "Prints counts, recovery times, and one JSON line; exit status 1 when anything was violated. Moments follow the\n"
      "machine's load, so a seed repeats the course of faults, not their instants.\n"
      "Examples:\n"
      "  troupe chaos configs/grpo-tiny-local.json --seed 7 --kills 20\n"
      "  troupe chaos configs/grpo-tiny-local.json --seed 7 --kills 100 --stops 5 --set "
      "nodes.conductor.config.steps=200\n"
      "One fault at a place of your choice: TROUPE_FAULTS=\"learner/0:updated:3:kill\" troupe run ... "
      "(docs/reliability.md)");
  command->callback([arguments, &words, &exit_code] {
    ChaosOptions chosen = arguments->options;
    chosen.sets = with_patience(chosen.sets);
    const Topology topology = load_topology(chosen.topology_file, {chosen.sets, {}, 0}, words);
    if (chosen.folder.empty())
      chosen.folder = std::filesystem::path(topology.run.folder) /
                      ("chaos-" + std::to_string(chosen.seed) + "-" + std::to_string(std::time(nullptr)));
    chosen.folder = std::filesystem::absolute(chosen.folder).lexically_normal();
    const ChaosResult result = run_chaos(chosen, topology, [](const std::string& line) {
      std::printf("%s\n", line.c_str());
      std::fflush(stdout);
    });
    print_result(chosen, result);
    exit_code = result.violations.empty() ? 0 : 1;
    if (exit_code == 0 && !arguments->keep) {
      std::filesystem::remove_all(chosen.folder);
    } else {
      std::printf("runs: %s\n", chosen.folder.c_str());
    }
  });
}

}  // namespace troupe
