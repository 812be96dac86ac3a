// The soft penalty of answers that come near the length limit, DAPO (arXiv 2503.14476) eq. 13, TRL's
// get_soft_overlong_punishment.
#pragma once

#include <cstdint>

namespace troupe {

// 0 up to max - buffer tokens, then falling linearly to -1 at max, -1 beyond. buffer > 0.
constexpr double soft_overlong_punishment(int64_t num_tokens, int64_t max_tokens, int64_t buffer_tokens) {
  const int64_t free_tokens = max_tokens - buffer_tokens;
  if (num_tokens <= free_tokens) return 0;
  if (num_tokens >= max_tokens) return -1;
  return static_cast<double>(free_tokens - num_tokens) / static_cast<double>(buffer_tokens);
}

}  // namespace troupe
