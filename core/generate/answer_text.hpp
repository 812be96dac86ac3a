// An answer's text and its stop strings.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/generate/engine.hpp"

namespace troupe {

// Whether the answer's text holds one of the stop strings. Looks at the end of the answer first: called per token.
bool reaches_stop(const TextDecoder& decode, std::span<const int32_t> tokens, const std::vector<std::string>& stops);

// The answer's text up to the first stop string, if any.
std::string final_text(const TextDecoder& decode, std::span<const int32_t> tokens,
                       const std::vector<std::string>& stops);

}  // namespace troupe
