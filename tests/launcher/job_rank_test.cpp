// Who a process of a job is, from the variables that torchrun and Slurm set.
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>

#include "launcher/play_job.hpp"

namespace troupe {
namespace {

// These variables alone, for a while.
class Environment {
 public:
  explicit Environment(std::map<std::string, std::string> values) : values_(std::move(values)) {
    for (const auto& [name, value] : values_) setenv(name.c_str(), value.c_str(), 1);
  }
  ~Environment() {
    for (const auto& [name, value] : values_) unsetenv(name.c_str());
  }

 private:
  const std::map<std::string, std::string> values_;
};

std::string refusal() {
  try {
    job_rank();
    return "none";
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
}

TEST(JobRank, AloneWhereNothingIsSaid) {
  EXPECT_EQ(job_rank().size, 1);
  const Environment one_task{{{"SLURM_PROCID", "0"}, {"SLURM_STEP_NUM_TASKS", "1"}}};
  EXPECT_EQ(job_rank().size, 1);
}

TEST(JobRank, IsTorchrunsOwn) {
  const Environment environment{{{"RANK", "5"},
                                 {"WORLD_SIZE", "8"},
                                 {"LOCAL_WORLD_SIZE", "4"},
                                 {"MASTER_ADDR", "10.0.0.7"},
                                 {"MASTER_PORT", "29500"},
                                 {"TROUPE_SECRET", "0123456789abcdef"}}};
  const JobRank rank = job_rank();
  EXPECT_EQ(rank.rank, 5);
  EXPECT_EQ(rank.size, 8);
  EXPECT_EQ(rank.on_host, 4);
  EXPECT_EQ(rank.address, "10.0.0.7");
  EXPECT_EQ(rank.port, 29500);
  EXPECT_EQ(rank.secret, "0123456789abcdef");
  const Environment agent{{{"TORCHELASTIC_USE_AGENT_STORE", "True"}}};
  EXPECT_EQ(job_rank().port, 29501);
}

TEST(JobRank, IsSlurmsOwn) {
  const Environment environment{{{"SLURM_PROCID", "3"},
                                 {"SLURM_NODEID", "1"},
                                 {"SLURM_JOB_ID", "41234"},
                                 {"SLURM_STEP_NUM_TASKS", "5"},
                                 {"SLURM_STEP_NUM_NODES", "2"},
                                 {"SLURM_STEP_TASKS_PER_NODE", "3,2"},
                                 {"SLURM_STEP_NODELIST", "gpu[07-08]"}}};
  EXPECT_NE(refusal().find("MASTER_ADDR is gpu07, another host: expected a secret"), std::string::npos) << refusal();
  const Environment secret{{{"TROUPE_SECRET", "0123456789abcdef"}}};
  const JobRank rank = job_rank();
  EXPECT_EQ(rank.rank, 3);
  EXPECT_EQ(rank.size, 5);
  EXPECT_EQ(rank.on_host, 2);
  EXPECT_EQ(rank.address, "gpu07");
  EXPECT_EQ(rank.port, 21234);
  const Environment told{{{"MASTER_ADDR", "10.0.0.9"}, {"MASTER_PORT", "4000"}}};
  EXPECT_EQ(job_rank().address, "10.0.0.9");
  EXPECT_EQ(job_rank().port, 4000);
}

TEST(JobRank, SlurmsListsAreRead) {
  EXPECT_EQ(first_host("n1"), "n1");
  EXPECT_EQ(first_host("n1,n2"), "n1");
  EXPECT_EQ(first_host("n[01-03,7]"), "n01");
  EXPECT_EQ(first_host("n[7],m2"), "n7");
  EXPECT_EQ(first_host("rack[1-2]-n[3,5-6].cluster"), "rack1-n3.cluster");
  EXPECT_THROW(first_host("n[1-2"), std::invalid_argument);
  EXPECT_EQ(tasks_of_node("4", 0), 4);
  EXPECT_EQ(tasks_of_node("2(x3),1", 2), 2);
  EXPECT_EQ(tasks_of_node("2(x3),1", 3), 1);
  EXPECT_THROW(tasks_of_node("2(x3),1", 4), std::invalid_argument);
  EXPECT_THROW(tasks_of_node("two", 0), std::invalid_argument);
}

}  // namespace
}  // namespace troupe
