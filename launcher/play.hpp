// A run from its start to its end in this process: lock, spawn, show, wait, report.
#pragma once

#include <filesystem>

#include "launcher/commands.hpp"
#include "roles/topology.hpp"

namespace troupe {

// Plays `topology` in `run_folder` (made by make_run_folder, or an earlier run's); writes RUN/topology.json and
// RUN/run.json first. Ctrl-C (SIGINT), SIGTERM and SIGHUP: the first asks for a clean stop with a checkpoint, the
// second ends everything at once. Returns the exit code (commands.hpp). Throws before anything was started only.
int play(const Topology& topology, const std::filesystem::path& run_folder, bool plain, const RoleCalls& calls,
         const Vocabulary& words);

}  // namespace troupe
