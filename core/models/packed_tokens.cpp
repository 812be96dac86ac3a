#include "core/models/packed_tokens.hpp"

#include <ATen/ATen.h>

#include <limits>
#include <stdexcept>
#include <string>

namespace troupe {

namespace {

void check_continues(const std::vector<int32_t>& continues, size_t sequences) {
  if (continues.empty()) return;
  bool good = continues.size() == sequences;
  int32_t root = -1;  // the last sequence that continues none
  for (size_t b = 0; good && b < sequences; ++b) {
    good = continues[b] == -1 || (root >= 0 && continues[b] == root);
    if (continues[b] == -1) root = static_cast<int32_t>(b);
  }
  if (!good)
    throw std::invalid_argument("packed tokens: a sequence may continue the last one before it that continues none");
}

}  // namespace

PackedTokens pack_tokens(const at::Tensor& tokens, const std::vector<int64_t>& lengths,
                         std::vector<int32_t> continues) {
  check_continues(continues, lengths.size());
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
  for (size_t b = 0; b < lengths.size(); ++b) {
    const int64_t length = lengths[b];
    const int64_t before = continues.empty() || continues[b] < 0 ? 0 : lengths[static_cast<size_t>(continues[b])];
    if (length <= 0 || length > tokens.size(0) - total)
      throw std::invalid_argument("packed tokens: lengths must be positive and add up to " +
                                  std::to_string(tokens.size(0)) + ", got a length of " + std::to_string(length) +
                                  " after " + std::to_string(total) + " tokens");
    for (int64_t i = 0; i < length; ++i) position[total + i] = before + i;
    total += length;
    packed.cu_seqlens.push_back(static_cast<int32_t>(total));
  }
  if (total != tokens.size(0))
    throw std::invalid_argument("packed tokens: lengths add up to " + std::to_string(total) + ", expected " +
                                std::to_string(tokens.size(0)));
  packed.positions = positions.to(tokens.device());
  packed.continues = std::move(continues);
  return packed;
}

}  // namespace troupe
