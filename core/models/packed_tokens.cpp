#include "core/models/packed_tokens.hpp"

#include <ATen/ATen.h>

#include <limits>
#include <stdexcept>
#include <string>

namespace troupe {

PackedTokens pack_tokens(const at::Tensor& tokens, const std::vector<int64_t>& lengths) {
  if (tokens.dim() != 1 || tokens.scalar_type() != at::kLong)
    throw std::invalid_argument("packed tokens: expected int64 [S], got " +
                                std::string(c10::toString(tokens.scalar_type())) + " of " +
                                std::to_string(tokens.dim()) + " dimensions");
  if (tokens.size(0) > std::numeric_limits<int32_t>::max())
    throw std::invalid_argument("packed tokens: more than 2^31 - 1 in one pack");
  PackedTokens packed;
  packed.tokens = tokens;
  packed.cu_seqlens.push_back(0);
  at::Tensor positions = at::empty({tokens.size(0)}, at::kLong);
  int64_t* position = positions.mutable_data_ptr<int64_t>();
  int64_t total = 0;
  for (int64_t length : lengths) {
    if (length <= 0 || length > tokens.size(0) - total)
      throw std::invalid_argument("packed tokens: lengths must be positive and add up to " +
                                  std::to_string(tokens.size(0)) + ", got a length of " + std::to_string(length) +
                                  " after " + std::to_string(total) + " tokens");
    for (int64_t i = 0; i < length; ++i) position[total + i] = i;
    total += length;
    packed.cu_seqlens.push_back(static_cast<int32_t>(total));
  }
  if (total != tokens.size(0))
    throw std::invalid_argument("packed tokens: lengths add up to " + std::to_string(total) + ", expected " +
                                std::to_string(tokens.size(0)));
  packed.positions = positions.to(tokens.device());
  return packed;
}

}  // namespace troupe
