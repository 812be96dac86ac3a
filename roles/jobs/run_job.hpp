// What the launcher calls of the single-role jobs.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <string>

#include "protocol/messages.hpp"
#include "roles/jobs/job_config.hpp"
#include "roles/jobs/job_rank.hpp"

namespace troupe {

struct JobHooks {
  // Rank 0: data, weights and tokenizer of all ranks are open, training begins after `done` batches of earlier starts
  // (0: anew). Nothing of the run folder was touched before.
  std::function<void(int64_t done)> on_training = {};
  std::function<void(const RunStatus&)> on_status = {};  // rank 0, every batch
  std::function<void(const std::string&)> on_event = {};
  // Rank 0, before the first batch: something long, and how much of it is done.
  std::function<void(const std::string& what, double share)> on_preparing = {};
  const std::atomic<int>* stop_requests = nullptr;  // raised by Ctrl-C: 1 asks for a clean stop with a checkpoint
};

inline bool stop_asked(const JobHooks& hooks) {
  return hooks.stop_requests && *hooks.stop_requests > 0;
}

// Throws std::invalid_argument naming the flag that is out of range.
void check_job(const JobRequest& job);

// The name of the outputs; the run folder's default is runs/<this>. Throws as start_model() does of a model folder's
// configuration.
std::string job_name(const JobRequest& job);

// Loads, trains, writes. Throws with one clear line.
void run_job(const JobRequest& job, const JobRank& rank, const std::filesystem::path& run_folder,
             const JobHooks& hooks);

}  // namespace troupe
