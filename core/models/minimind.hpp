// The shapes of MiniMind's models (shared by training, evaluation and conversion), known by width, depth and use_moe.
#pragma once

#include <cstdint>

#include "core/models/config.hpp"

namespace troupe {

// LoRA's alpha in the fork of MiniMind, whose files do not say it; elsewhere it is the rank.
inline constexpr double kForkLoraAlpha = 16;

// vocab 6400, 8 heads of which 2 hold keys and values, intermediate 64 * ceil(floor(8 h / 3) / 64), 32768 positions,
// theta 1e6, eps 1e-5, tied embeddings, no biases, bos 1, eos 2, pad 0; 4 experts, 2 a token, 1 shared with `moe`.
// 512/8: 25,829,888 parameters; 768/16: 104,030,976; 640/8 with moe: 145,029,760.
// `yarn`: rotary scaling for long inputs (factor 16 from 2048, beta 32 and 1, attention factor 1).
// Throws std::invalid_argument when hidden_size is no positive multiple of 16 or num_layers is not positive.
DecoderConfig minimind_config(int64_t hidden_size, int64_t num_layers, bool moe, bool yarn = false);

// Its rotary embedding: plain, or with `yarn` as above.
RopeConfig minimind_rope(double theta, bool yarn);

// Of the whole model, tied matrices once; and of those that one token passes through.
int64_t parameter_count(const DecoderConfig& config);
int64_t active_parameter_count(const DecoderConfig& config);

}  // namespace troupe
