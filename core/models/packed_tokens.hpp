// Sequences laid one after another without padding: what the decoder reads. No token sees another sequence, except that
// a sequence may continue an earlier one: then it sees all of that one before its own tokens. So the answers to one
// prompt share the prompt's computation, forward and backward.
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
  // [B], or empty when no sequence continues another: the earlier sequence that b continues (which itself continues
  // none), or -1. Those that continue the same one follow it directly.
  std::vector<int32_t> continues;
};

// Packs `tokens` (int64 [S]) with sequences of the given lengths, positions counting from 0 in each, or from the end of
// the sequence it continues. Throws std::invalid_argument when a length is not positive, the lengths do not add up to
// S, or `continues` breaks its rules.
PackedTokens pack_tokens(const at::Tensor& tokens, const std::vector<int64_t>& lengths,
                         std::vector<int32_t> continues = {});

}  // namespace troupe
