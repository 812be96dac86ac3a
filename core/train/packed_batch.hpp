// The batch of one update, and its split into micro-batches.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace troupe {

// B sequences, each a prompt of P_i >= 1 and an answer of T_i >= 0 tokens, one after another without padding. N scored
// answer tokens, in order: all sum T_i of them, or those that `scored` marks. (Plain causal training: a prompt of one
// token.)
struct PackedBatch {
  at::Tensor tokens;                      // int64 [S], S = sum (P_i + T_i)
  std::vector<int64_t> prompt_lengths;    // [B]
  std::vector<int64_t> response_lengths;  // [B]
  std::vector<uint8_t> scored = {};       // [sum T_i] 1: scored, 0: not; or empty: all are
  int64_t unit = 1;                       // so many neighbours always stay in one micro-batch (pairs: 2); divides B

  int64_t sequences() const { return static_cast<int64_t>(prompt_lengths.size()); }
  int64_t response_tokens() const;  // sum T_i
  int64_t scored_tokens() const;    // N
};

// Throws std::invalid_argument naming the field that is wrong (dtype, sizes, a prompt without a token, a token id
// outside [0, vocab_size)).
void check_batch(const PackedBatch& batch, int64_t vocab_size);

// A part of a batch that is computed at once.
struct MicroBatch {
  PackedBatch batch;
  std::vector<int64_t> sequences;  // [b] which sequences of the whole batch, in its order here
  at::Tensor tokens_of;  // int64 [n], host: which of the N scored tokens, so x.index_select(0, tokens_of) is its part
};

// Fills micro-batches with whole units of sequences, in order, until the next would exceed `token_budget` (a longer one
// has one of its own); `shared_prompts`: a prompt that neighbours share counts once. Deterministic. `token_budget` 0:
// one micro-batch.
std::vector<MicroBatch> split_batch(const PackedBatch& batch, int64_t token_budget, bool shared_prompts = false);

}  // namespace troupe
