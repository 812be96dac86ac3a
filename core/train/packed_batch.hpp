// The batch of one update, and its split into micro-batches.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace troupe {

// B sequences, each a prompt of P_i >= 1 and an answer of T_i >= 0 tokens, one after another without padding. N = sum
// T_i answer tokens, in order. (Plain causal training: a prompt of one token.)
struct PackedBatch {
  at::Tensor tokens;                      // int64 [S], S = sum (P_i + T_i)
  std::vector<int64_t> prompt_lengths;    // [B]
  std::vector<int64_t> response_lengths;  // [B]

  int64_t sequences() const { return static_cast<int64_t>(prompt_lengths.size()); }
  int64_t response_tokens() const;
};

// Throws std::invalid_argument naming the field that is wrong (dtype, sizes, a prompt without a token, a token id
// outside [0, vocab_size)).
void check_batch(const PackedBatch& batch, int64_t vocab_size);

// A part of a batch that is computed at once.
struct MicroBatch {
  PackedBatch batch;
  std::vector<int64_t> sequences;  // [b] which sequences of the whole batch, in its order here
  at::Tensor tokens_of;  // int64 [n], host: which of the N answer tokens, so x.index_select(0, tokens_of) is its part
};

// Fills micro-batches with whole sequences, in order, until the next would exceed `token_budget` (a longer sequence has
// one of its own); `shared_prompts`: a prompt that neighbours share counts once. Deterministic. `token_budget` 0: one
// micro-batch.
std::vector<MicroBatch> split_batch(const PackedBatch& batch, int64_t token_budget, bool shared_prompts = false);

}  // namespace troupe
