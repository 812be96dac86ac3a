// From a topology to the processes that play it on this host.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "actors/supervisor.hpp"
#include "roles/run_file.hpp"
#include "roles/topology.hpp"

namespace troupe {

inline constexpr const char* kOwnProgram = "/proc/self/exe";

// Every node that is not external, as a process "PROGRAM role --run RUN --node NAME/i" with its planned threads and its
// log in RUN/logs/. `program` is /proc/self/exe but for tests. on_status and on_event are left to the caller.
SupervisorOptions supervisor_options(const Topology& topology, const RunFile& run,
                                     const std::filesystem::path& run_folder, const std::string& program = kOwnProgram);

// As a shell finds a program. One that is not found is left as it is: starting it says so.
std::string program_named(const std::string& name);

// The command line that this process was started with.
std::vector<std::string> own_arguments();

// Threads of parallel loops spin while they wait for each other, and where something else wants the core that takes it
// from the very thread they wait for: measured on two busy cores, three quarters of all time went there. Their runtime
// reads how to wait when it is loaded, so this starts the process anew, once, with OMP_WAIT_POLICY=passive; not where
// the variable is set already. For commands that compute in the launcher's own process, or in copies of it.
void wait_without_spinning();

}  // namespace troupe
