// A run under seeded faults, and the proof that it did not notice: roles, the conductor among them, are killed or
// stopped at random moments and at fault points (actors/fault_hooks.hpp), the launcher is killed with all of them (what
// a power cut does) and the run resumed; then the files are audited (`troupe journal --check`) and the last checkpoint
// compared, bit for bit, with an undisturbed run's. Real processes of this binary, found by pid, never by name.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "roles/topology.hpp"

namespace CLI {
class App;
}

namespace troupe {

struct Vocabulary;

struct ChaosOptions {
  std::filesystem::path topology_file;
  std::vector<std::string> sets;
  std::filesystem::path folder;  // of this chaos: reference/, round-1/, round-2/ ... are made inside
  uint64_t seed = 1;
  int64_t kills = 20;          // in all rounds together, those at fault points and power cuts included
  int64_t stops = 0;           // SIGSTOP, found by the lease
  double every_s = 1;          // mean time between faults
  double power_cuts = 0.1;     // share of the kills
  double fault_points = 0.3;   // share of the kills
  double round_limit_s = 900;  // a round that takes longer has hung
  std::string reference;       // digest to compare with; "": an undisturbed run is made first
  std::string program = "/proc/self/exe";
};

struct ChaosResult {
  int64_t rounds = 0, identical = 0;  // whole runs under faults; how many ended with the reference's bits
  int64_t kills = 0, stops = 0, power_cuts = 0, at_fault_points = 0;  // kills: all but stops
  std::vector<double> recovery_s{};                                   // from a fault to the next finished step
  double undisturbed_s = 0, faulty_s = 0;                             // the reference's wall time; mean of the rounds
  std::string reference{};
  std::vector<std::string> violations{};  // one line each
};

// Rounds of the whole run until all faults have been dealt out. `tell` gets a line for people now and then. Throws for
// a topology that cannot be disturbed (one process) and when the undisturbed run fails.
ChaosResult run_chaos(const ChaosOptions& options, const Topology& topology,
                      const std::function<void(const std::string&)>& tell);

// SHA-256 over the files of the run's newest checkpoint; "" when there is none.
std::string checkpoint_digest(const std::filesystem::path& run_folder);

// `troupe chaos`, added to the command line.
void add_chaos_command(CLI::App& app, const Vocabulary& words, int& exit_code);

// The value below which a share `p` of the values lies (nearest rank); 0 of none.
double percentile(std::vector<double> values, double p);

}  // namespace troupe
