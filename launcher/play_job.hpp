// A single-role job from its settings to its end: run folder, display, the other processes of its group.
#pragma once

#include <nlohmann/json.hpp>

#include "launcher/commands.hpp"
#include "roles/jobs/job_config.hpp"

namespace troupe {

// Returns the launcher's exit code. Processes of --nproc are started with this one's command line.
int play_job(const JobRequest& job, bool plain, const RoleCalls& calls);

// Who this process is, from the environment as torchrun and Slurm set it; alone where it says nothing:
//   RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT      or  SLURM_PROCID, SLURM_STEP_NUM_TASKS, SLURM_STEP_NUM_NODES
// Throws std::invalid_argument naming the variable that makes no sense, or a rank 0 on another host.
JobRank job_rank();

// The job's settings as one object: {"job": "sft", flags ...}.
nlohmann::ordered_json job_json(const JobRequest& job);

}  // namespace troupe
