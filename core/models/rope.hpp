// Rotary position embedding (Su et al. 2021), half rotation: dimensions i and i + head_dim / 2 turn by position * f_i.
#pragma once

#include <ATen/core/Tensor.h>

#include "core/models/config.hpp"
#include "core/models/packed_tokens.hpp"

namespace troupe {

struct RopeFrequencies {
  at::Tensor inverse;            // f, float32 [head_dim / 2]
  double attention_scale = 1.0;  // factor on cosine and sine (yarn)
};

// transformers 5's modeling_rope_utils, computed in float32 as there. `sequence_length` matters for "dynamic" only
// (frequencies of a sequence longer than trained on). Throws std::invalid_argument for an unknown type.
RopeFrequencies rope_frequencies(const DecoderConfig& config, int64_t sequence_length);

// Cosine and sine of each token's angles, float32 [S, head_dim / 2] each, on the device of packed.tokens.
struct RopeTable {
  at::Tensor cos, sin;
};
RopeTable rope_table(const DecoderConfig& config, const PackedTokens& packed);

}  // namespace troupe
