// What differs between the versions of MiniMind's trainers that --compat selects (docs/jobs.md has the table).
#pragma once

#include <optional>
#include <string>

#include "core/data/training_samples.hpp"

namespace troupe {

struct Compat {
  SampleStyle samples = SampleStyle::kCanonical;
  bool rate_starts_above = false;  // the rate's curve starts at 1.1 lr, not at lr
  bool flush_epoch = true;         // an epoch's end completes a partial accumulation
  bool counts_from_two = false;    // batch 1 of an epoch counts as 2 for accumulation, its last but one as the last
  bool half_checkpoints = false;   // those hold weights rounded to float16
  bool fork_lora = false;          // adapters of q, k and v with alpha 16, started and named as the fork does
  std::optional<double> aux_coefficient;  // of the experts' load-balancing loss; none: the model's own (MiniMind: 0.01)
  bool dpo_balances = true;               // that loss is part of dpo's
  bool dpo_mean = false;                  // dpo scores by the mean of a sequence's log-probabilities, not by their sum
};

// Throws std::invalid_argument naming the versions there are.
Compat compat_of(const std::string& name);

// The factor on the learning rate in batch s = 1 .. total: half a cosine from 1 to 0.1; started above: from 1.1.
double rate_factor(const Compat& compat, int64_t s, int64_t total);

}  // namespace troupe
