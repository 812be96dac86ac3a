// A batch as the decoder reads it, with neighbouring sequences that have the same prompt sharing the prompt's
// computation: the prompt is laid once, each answer continues it. For G answers to a prompt of P tokens that is
// P + sum T instead of G P + sum T tokens, forward and backward, with the same results up to rounding.
#pragma once

#include <cstdint>
#include <vector>

#include "core/models/packed_tokens.hpp"
#include "core/train/packed_batch.hpp"

namespace troupe {

struct PackedPrompts {
  PackedTokens packed;
  // Row of the hidden state that each sequence's first answer token is predicted from, and of the first answer token
  // itself (one past the pack where there is none); [B] each.
  std::vector<int64_t> prompt_end, response_begin;
};

// `share` false: every sequence by itself.
PackedPrompts pack_prompts(const PackedBatch& batch, bool share, at::Device device);

// Whether sequence i has the same prompt as sequence i - 1, which begins at token `begin_before`, itself at `begin`.
bool same_prompt(const PackedBatch& batch, std::size_t i, int64_t begin_before, int64_t begin);

// Rows of a pack, each distinct one once, and which of them each of the wanted rows is.
struct DistinctRows {
  at::Tensor rows;   // int64 [R], in the order they are first wanted
  at::Tensor which;  // int64 [N] into rows; undefined when all wanted rows are distinct
};
// What scored answer tokens are predicted from, [N]: the token before each.
DistinctRows answer_rows(const PackedBatch& batch, const PackedPrompts& laid);
// The last token of each sequence, N = B.
DistinctRows last_rows(const PackedBatch& batch, const PackedPrompts& laid);

}  // namespace troupe
