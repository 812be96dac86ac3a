// The batches of one epoch for one process, tokenised ahead by other threads.
#pragma once

#include <deque>
#include <future>
#include <optional>
#include <vector>

#include "core/data/jsonl.hpp"
#include "roles/jobs/objective.hpp"

namespace troupe {

struct BatchSettings {
  int64_t batch_size = 1;
  int64_t workers = 1;  // threads
  bool skip_malformed = false;
  int64_t pad_to = 0;  // 0: no padding; else every sequence is filled up with pad_token, which is not scored
  int32_t pad_token = 0;
};

// One batch as it was read.
struct ReadBatch {
  JobBatch batch;                       // samples without a scored token are left out
  int64_t malformed = 0, unscored = 0;  // lines left out, by reason
  std::string first_malformed;
};

class BatchSource {
 public:
  // `order`: the epoch's samples; the first `skip` batches of it are left out. `lines`, `maker` and `objective` must
  // outlive the source.
  BatchSource(const JsonLines& lines, const SampleMaker& maker, const Objective& objective, std::vector<int64_t> order,
              const BatchSettings& settings, int64_t skip = 0);

  static int64_t num_batches(int64_t samples, int64_t batch_size) { return (samples + batch_size - 1) / batch_size; }

  // The next one; none at the epoch's end. Throws std::runtime_error "FILE:LINE: ..." for a line that can't be read.
  std::optional<ReadBatch> next();

 private:
  ReadBatch read(int64_t number) const;
  void look_ahead();

  const JsonLines& lines_;
  const SampleMaker& maker_;
  const Objective& objective_;
  const std::vector<int64_t> order_;
  const BatchSettings settings_;
  int64_t next_;  // batch that is not yet begun
  std::deque<std::future<ReadBatch>> ahead_;
};

// Sequences one after another, those of a sample as neighbours (`per_sample` of them). A pair's common beginning is
// computed once.
JobBatch make_job_batch(const std::vector<TrainingSample>& sequences, int64_t per_sample);

}  // namespace troupe
