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

// How many rounds (12 ns here) a thread of a parallel loop spins, at a loop's end, before it sleeps. To be woken takes
// longer than many a loop; but where something else wants the core, spinning takes it from the very thread that is
// waited for.
enum class Spin {
  kAlone = 30000,  // a job, which has its cores to itself: a step 4 to 8 % faster than with none
  kInTurn = 3000,  // processes that compute in turn: a GRPO step 4 % faster; more is no better
  kNone = 0,       // processes that compute at once: with 3000 an asynchronous step is 5 % slower
};

// By their runtime's default threads spin for long: measured on two busy cores, three quarters of all time went there.
// It reads how to wait when it is loaded, so this starts the process anew, once, with OMP_WAIT_POLICY=passive and
// GOMP_SPINCOUNT; not where the former is set already. For commands that compute in the launcher's own process, or in
// copies of it.
void limit_spinning(Spin spin);

}  // namespace troupe
