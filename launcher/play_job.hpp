// A single-role job from its settings to its end: run folder, display, the other processes of its group.
#pragma once

#include <nlohmann/json.hpp>

#include "launcher/commands.hpp"
#include "roles/jobs/job_config.hpp"

namespace troupe {

// Returns the launcher's exit code. Processes of --nproc are started with this one's command line.
int play_job(const JobRequest& job, bool plain, const RoleCalls& calls);

// Who this process is, from the environment as torchrun and Slurm set it; alone where it says nothing:
//   RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT, LOCAL_RANK, LOCAL_WORLD_SIZE
//   or SLURM_PROCID, SLURM_LOCALID, SLURM_STEP_NUM_TASKS, SLURM_STEP_NUM_NODES, SLURM_STEP_NODELIST,
//   SLURM_STEP_TASKS_PER_NODE
// and the ranks' secret from TROUPE_SECRET or TROUPE_SECRET_FILE; a rank 0 that is not on this host's loopback needs
// it. Throws std::invalid_argument naming the variable that makes no sense or is missing.
JobRank job_rank();
// Of Slurm's lists: "n[01-03,7]" -> "n01"; "2(x3),1", node 3 -> 1.
std::string first_host(const std::string& nodes);
int tasks_of_node(const std::string& list, int node);

// The job's settings as one object: {"job": "sft", flags ...}.
nlohmann::ordered_json job_json(const JobRequest& job);

}  // namespace troupe
