// The loop of every single-role job: epochs, batches, accumulation, learning rate, figures, outputs, resuming.
//
// Numbers as MiniMind's trainers: a batch's loss is the mean over its scored tokens (or pairs), divided by
// accumulation_steps and by the number of processes; the learning rate follows the count of batches, not of updates.
#pragma once

#include "roles/jobs/batch_source.hpp"
#include "roles/jobs/compat.hpp"
#include "roles/jobs/job_group.hpp"
#include "roles/jobs/job_output.hpp"
#include "roles/jobs/run_job.hpp"

namespace troupe {

class RunMetrics;

// What a trainer works with; all of it must outlive it.
struct JobParts {
  const JobConfig& config;
  const Compat& compat;
  const SampleMaker& maker;
  const JsonLines& lines;
  const JsonLines* held_out;  // null: no evaluation
  Objective& objective;
  TrainEngine& engine;
  const JobOutput& output;
  JobGroup& group;
  const JobHooks& hooks;
  int32_t pad_token = 0;
  bool saves_by_epoch = false;  // save_interval counts epochs
};

class Trainer {
 public:
  Trainer(const JobParts& parts, std::filesystem::path run_folder);
  ~Trainer();
  // Trains to the end, or to the stop that was asked for; writes the outputs. Throws std::runtime_error.
  void run();

 private:
  void resume();
  enum class Ended { kEpoch, kLimit, kStopped };  // at its last batch, at max_steps, on request
  Ended train_epoch();
  // One optimizer step with what was accumulated; `s` counts batches from 1.
  void update(int64_t s);
  void log(int64_t step, int64_t iters, const Figures& figures);
  void save();                     // all ranks together; rank 0 writes
  void measure(const char* when);  // held-out samples, "before" or "after"; all ranks together, rank 0 computes
  Figures evaluate(const char* when);
  void tell(const std::string& line) const;
  void tell_malformed(const std::string& line) const;
  void show(const std::string& detail) const;
  int64_t batches_per_epoch() const;
  int64_t batches_done() const;  // over all epochs
  BatchSettings batch_settings() const;

  const JobParts parts_;
  const std::filesystem::path run_folder_;
  std::unique_ptr<RunMetrics> metrics_;  // rank 0
  JobPlace place_;                       // what is done
  int64_t pending_ = 0;                  // batches accumulated since the last optimizer step
  bool save_due_ = false;
  StepStats last_update_;
  int64_t malformed_ = 0, unscored_ = 0;
  double tokens_since_log_ = 0, logged_at_s_ = 0;
  double saving_s_ = 0;  // since the last line of metrics
};

}  // namespace troupe
