// Which of the processes of a job this is. It stands in the environment, as torchrun and Slurm set it:
//   RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT      or  SLURM_PROCID, SLURM_STEP_NUM_TASKS, SLURM_STEP_NUM_NODES
// `troupe JOB --nproc N` sets the former for the processes it starts. All on one host.
#pragma once

#include <string>

namespace troupe {

struct JobRank {
  int rank = 0;
  int size = 1;
  std::string address;  // of rank 0; "" when alone
  int port = 0;
};

// From the environment; {0, 1} where it says nothing. Throws std::invalid_argument naming the variable that makes no
// sense.
JobRank job_rank();

}  // namespace troupe
