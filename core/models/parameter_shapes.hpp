// Which parameters a model of a configuration has.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/models/config.hpp"

namespace troupe {

// Every parameter of the family by Hugging Face name, with its shape; without "score.weight".
std::map<std::string, std::vector<int64_t>> parameter_shapes(const DecoderConfig& config);

// What the feed-forwards of a layer are called before "gate_proj", "up_proj" and "down_proj": {"mlp."}, or the experts
// and behind them the shared ones: "mlp.experts.0.", ..., "mlp.shared_experts.0.", ...
std::vector<std::string> feed_forward_prefixes(const MoeConfig& moe);

}  // namespace troupe
