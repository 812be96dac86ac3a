// A whole simulated run: the cast, its supervisor, the faults of a seed, and what must hold in the end.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "world.hpp"

namespace troupe::simulation {

// What is run; the final weights of a deterministic run depend on this alone.
struct Workload {
  int64_t actors = 2;
  int64_t max_staleness = 0;
  int64_t steps = 4;
  int64_t checkpoint_every = 2;
  bool deterministic = true;
  auto operator<=>(const Workload&) const = default;
};

struct Plan {
  uint64_t seed = 0;
  Workload workload;
  Conditions conditions;
  int faults = 0;
  bool trace = false;
};

// The plan of a seed: its workload, conditions and number of faults.
Plan plan_of(uint64_t seed);

struct Outcome {
  std::vector<std::string> violations;  // of what must hold; empty: good
  uint64_t weights = 0;                 // final ones
  uint64_t kills = 0, stops = 0, hangs = 0, cuts = 0, power_cuts = 0, restarts = 0, letters = 0, lost = 0;
  double virtual_seconds = 0;
};

// Plays it and checks:
//   - the run ends, within two minutes of virtual time after its last fault
//   - final weights are those of the undisturbed run, where it is deterministic
//   - every sample stands in exactly one step of the journal, steps are 1 .. N
//   - no step was trained with two different batches, none before its batch was durable
//   - after a last power cut journal and checkpoint still hold the whole run
Outcome play(const Plan& plan);

}  // namespace troupe::simulation
