// From a topology to the processes that play it on this host.
#pragma once

#include <filesystem>

#include "actors/supervisor.hpp"
#include "roles/run_file.hpp"
#include "roles/topology.hpp"

namespace troupe {

// Every node that is not external, as a process "PROGRAM role --run RUN --node NAME/i" with its planned threads and its
// log in RUN/logs/. `program` is /proc/self/exe but for tests. on_status and on_event are left to the caller.
SupervisorOptions supervisor_options(const Topology& topology, const RunFile& run,
                                     const std::filesystem::path& run_folder,
                                     const std::string& program = "/proc/self/exe");

}  // namespace troupe
