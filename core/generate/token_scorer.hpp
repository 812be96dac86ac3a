// Log-probabilities and logits of given tokens: a decoder's pass without drawing. Same kernels, same bits as
// generation.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/generate/cached_decoder.hpp"
#include "core/generate/page_pool.hpp"

namespace troupe {

struct ScoreLimits {
  int64_t max_rows = 0;    // tokens in one pass
  int64_t max_logits = 0;  // rows of logits at a time
};

// See Engine::logprobs. A sequence that begins as the one before it does shares the full pages of what is equal
// (`share_prompts`): answers to one prompt, questions behind the same examples. Takes pages from the pool and gives
// them all back.
std::vector<float> score_tokens(CachedDecoder& decoder, PagePool& pages, const ScoreLimits& limits,
                                std::span<const int32_t> tokens, std::span<const int32_t> prompt_lengths,
                                std::span<const int32_t> response_lengths, double temperature, bool share_prompts);

// Logits of the last `rows` tokens of a sequence, float32 [rows, vocab].
std::vector<float> sequence_logits(CachedDecoder& decoder, PagePool& pages, const ScoreLimits& limits,
                                   std::span<const int32_t> tokens, int64_t rows);

}  // namespace troupe
