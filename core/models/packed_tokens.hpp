// Sequences laid one after another without padding: what the decoder reads. No token sees another sequence.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace troupe {

// B sequences, S tokens in all. The bounds live on the host: they steer loops, never a kernel's data.
struct PackedTokens {
  at::Tensor tokens;                // int64 [S]
  at::Tensor positions;             // int64 [S], rotary position of each token, 0 at the start of a sequence
  std::vector<int32_t> cu_seqlens;  // [B + 1], cu_seqlens[0] = 0, cu_seqlens[B] = S, strictly increasing
};

// Packs `tokens` (int64 [S]) with sequences of the given lengths, positions counting from 0 in each.
// Throws std::invalid_argument when a length is not positive or the lengths do not add up to S.
PackedTokens pack_tokens(const at::Tensor& tokens, const std::vector<int64_t>& lengths);

}  // namespace troupe
