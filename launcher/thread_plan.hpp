// How the processes of one host share its cores: by plan, not by accident.
#pragma once

#include "roles/topology.hpp"

namespace troupe {

// Cores this process may use: its CPU affinity, cut by the control group's CPU quota. At least 1.
int host_cores();

// Gives every local node with threads 0 its share. A synchronous run's phases alternate (all actors generate, then the
// reference scores, then the learner trains), so each computing node gets all cores, divided by its own replicas;
// conductor and reward compute next to nothing and get 1.
void plan_threads(Topology& topology, int cores);

// Whether its nodes compute one after the other: actors do not generate while the learner trains (max_staleness 0).
bool nodes_take_turns(const Topology& topology);

}  // namespace troupe
