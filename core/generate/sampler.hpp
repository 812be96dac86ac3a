// Drawing one token from one row of logits. Pure: the random number comes in (philox.hpp).
//
// As transformers does it, in its order: repetition penalty, temperature, top-k, top-p, min-p, then a draw. Ties in
// greedy choice go to the lowest id; ties at the top-k border are all kept, as in transformers.
// The reported log-probability is of logits / temperature over the whole vocabulary, before penalty and restriction.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/generate/kernels.hpp"
#include "protocol/types.hpp"

namespace troupe {

struct LogitRow {
  float* values = nullptr;  // [vocab, padded to 16 with -infinity]; the penalty changes and restores it
  const kernels::BlockStats* stats = nullptr;  // per kLogitBlock logits, at the row's inverse temperature
  int64_t vocab_size = 0;
};

struct Draw {
  int32_t token = 0;
  float logprob = 0;
};

// 1 / temperature, or 1 when greedy.
float inverse_temperature(const Sampling& sampling);

// Throws std::invalid_argument for values out of range.
void check_sampling(const Sampling& sampling);

// `seen`: prompt and answer so far, for the repetition penalty. `uniform` in [0, 1).
Draw draw_token(const kernels::KernelTable& kernels, const LogitRow& row, const Sampling& sampling,
                std::span<const int32_t> prompt, std::span<const int32_t> answer, double uniform);

// log softmax(logits / temperature)[token], from the row's stats.
float token_logprob(const LogitRow& row, float inverse_temperature, int32_t token);

}  // namespace troupe
