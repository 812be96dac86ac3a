#include "roles/jobs/batch_source.hpp"

#include <ATen/ops/tensor.h>

#include <algorithm>
#include <stdexcept>

namespace troupe {
namespace {

// Tokens before the first that is scored (at least one, at most all but one): nothing there is predicted.
int64_t unscored_head(const TrainingSample& sample) {
  const auto first = std::find(sample.scored.begin() + 1, sample.scored.end(), uint8_t{1});
  return std::min<int64_t>(first - sample.scored.begin(), static_cast<int64_t>(sample.tokens.size()) - 1);
}

// Length of what all sequences of a sample begin with and none is scored in.
int64_t common_head(std::span<const TrainingSample> sample) {
  int64_t length = unscored_head(sample[0]);
  for (const TrainingSample& other : sample.subspan(1)) {
    length = std::min(length, unscored_head(other));
    const auto end = sample[0].tokens.begin() + length;
    length = std::mismatch(sample[0].tokens.begin(), end, other.tokens.begin()).first - sample[0].tokens.begin();
  }
  return std::max<int64_t>(length, 1);
}

}  // namespace

JobBatch make_job_batch(const std::vector<TrainingSample>& sequences, int64_t per_sample) {
  JobBatch out;
  std::vector<int64_t> tokens;
  for (std::size_t i = 0; i < sequences.size(); i += static_cast<std::size_t>(per_sample)) {
    const std::span sample = std::span(sequences).subspan(i, static_cast<std::size_t>(per_sample));
    const int64_t head = common_head(sample);
    for (const TrainingSample& sequence : sample) {
      tokens.insert(tokens.end(), sequence.tokens.begin(), sequence.tokens.end());
      out.packed.prompt_lengths.push_back(head);
      out.packed.response_lengths.push_back(static_cast<int64_t>(sequence.tokens.size()) - head);
      out.packed.scored.insert(out.packed.scored.end(), sequence.scored.begin() + head, sequence.scored.end());
      out.scored.push_back(std::count(sequence.scored.begin() + head, sequence.scored.end(), uint8_t{1}));
    }
    ++out.samples;
  }
  out.packed.tokens = at::tensor(tokens, at::kLong);
  out.packed.unit = per_sample;
  return out;
}

BatchSource::BatchSource(const JsonLines& lines, const SampleMaker& maker, const Objective& objective,
                         std::vector<int64_t> order, const BatchSettings& settings, int64_t skip)
    : lines_(lines), maker_(maker), objective_(objective), order_(std::move(order)), settings_(settings), next_(skip) {
  look_ahead();
}

void BatchSource::look_ahead() {
  const int64_t all = num_batches(static_cast<int64_t>(order_.size()), settings_.batch_size);
  while (next_ < all && static_cast<int64_t>(ahead_.size()) < 2 * settings_.workers)
    ahead_.push_back(std::async(std::launch::async, [this, number = next_++] { return read(number); }));
}

std::optional<ReadBatch> BatchSource::next() {
  if (ahead_.empty()) return std::nullopt;
  ReadBatch batch = ahead_.front().get();
  ahead_.pop_front();
  look_ahead();
  return batch;
}

ReadBatch BatchSource::read(int64_t number) const {
  ReadBatch out;
  std::vector<TrainingSample> sequences;
  int64_t per_sample = 1;
  const auto size = static_cast<int64_t>(order_.size());
  for (int64_t i = number * settings_.batch_size; i < std::min(size, (number + 1) * settings_.batch_size); ++i) {
    const int64_t line = order_[static_cast<std::size_t>(i)];
    std::vector<TrainingSample> sample;
    try {
      sample = objective_.read(maker_, lines_.line(line));
    } catch (const std::invalid_argument& error) {
      const std::string what = lines_.where(line) + ": " + error.what();
      if (!settings_.skip_malformed) throw std::runtime_error(what);
      if (out.malformed++ == 0) out.first_malformed = what;
      continue;
    }
    const bool all_scored =
        std::ranges::all_of(sample, [](const TrainingSample& s) { return s.tokens.size() > 1 && s.num_scored() > 0; });
    if (!all_scored) {
      ++out.unscored;
      continue;
    }
    per_sample = static_cast<int64_t>(sample.size());
    for (TrainingSample& sequence : sample) {
      if (settings_.pad_to > 0) {
        sequence.tokens.resize(static_cast<std::size_t>(settings_.pad_to), settings_.pad_token);
        sequence.scored.resize(static_cast<std::size_t>(settings_.pad_to), 0);
      }
      sequences.push_back(std::move(sequence));
    }
  }
  if (!sequences.empty()) out.batch = make_job_batch(sequences, per_sample);
  return out;
}

}  // namespace troupe
