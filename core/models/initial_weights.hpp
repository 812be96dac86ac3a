// Random weights to start a pretraining run from.
#pragma once

#include <cstdint>

#include "core/models/config.hpp"
#include "core/models/state_dict.hpp"

namespace troupe {

// float32, on the CPU, by Hugging Face name. Every linear weight and the router uniform in +-1/sqrt(fan_in) (torch's
// default for nn.Linear), biases likewise, the embedding uniform in +-1/sqrt(hidden_size) (MiniMind ties it to the
// output projection), norms 1. A pure function of (config, seed).
StateDict initial_weights(const DecoderConfig& config, uint64_t seed);

}  // namespace troupe
