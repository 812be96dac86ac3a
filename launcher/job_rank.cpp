#include <cstdlib>
#include <stdexcept>

#include "launcher/play_job.hpp"

namespace troupe {
namespace {

std::string text_of(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

int number_of(const char* name) {
  const std::string text = text_of(name);
  std::size_t end = 0;
  int value = -1;
  try {
    value = std::stoi(text, &end);
  } catch (const std::exception&) {
    end = 0;
  }
  if (end != text.size() || text.empty() || value < 0)
    throw std::invalid_argument(std::string(name) + "='" + text + "', expected a number");
  return value;
}

bool on_this_host(const std::string& address) {
  return address == "localhost" || address.starts_with("127.") || address == "::1";
}

}  // namespace

JobRank job_rank() {
  JobRank out;
  if (!text_of("RANK").empty()) {
    out = {number_of("RANK"), number_of("WORLD_SIZE"), text_of("MASTER_ADDR"), number_of("MASTER_PORT")};
  } else if (!text_of("SLURM_PROCID").empty() && text_of("SLURM_STEP_NUM_TASKS") != "1" &&
             !text_of("SLURM_STEP_NUM_TASKS").empty()) {
    const int job = number_of("SLURM_JOB_ID");
    out = {number_of("SLURM_PROCID"), number_of("SLURM_STEP_NUM_TASKS"),
           text_of("SLURM_STEP_NUM_NODES") == "1" ? "127.0.0.1" : text_of("SLURM_LAUNCH_NODE_IPADDR"),
           20000 + job % 20000};
  }
  if (out.size < 1 || out.rank >= out.size)
    throw std::invalid_argument("RANK is " + std::to_string(out.rank) + " of WORLD_SIZE " + std::to_string(out.size));
  if (out.size > 1 && out.address.empty()) throw std::invalid_argument("WORLD_SIZE > 1, but MASTER_ADDR is not set");
  if (out.size > 1 && !on_this_host(out.address))
    throw std::invalid_argument("MASTER_ADDR is " + out.address +
                                ": jobs over several hosts are not offered, expected 127.0.0.1");
  return out;
}

}  // namespace troupe
