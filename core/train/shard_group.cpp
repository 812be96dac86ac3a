#include "core/train/shard_group.hpp"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <stdexcept>
#include <string>

namespace troupe {
namespace {

constexpr int64_t kBoundary = 64;             // elements: whole vectors, so that no cut changes how one is computed
constexpr int64_t kRound = int64_t{1} << 20;  // elements that one rank sends at a time

}  // namespace

std::vector<int64_t> shard_bounds(int64_t elements, int size) {
  if (size < 1) throw std::invalid_argument("shards: " + std::to_string(size) + " ranks, expected at least 1");
  std::vector<int64_t> bounds;
  for (int64_t rank = 0; rank < size; ++rank) bounds.push_back(elements * rank / size / kBoundary * kBoundary);
  bounds.push_back(elements);
  return bounds;
}

at::Tensor gather_at_first(ShardGroup& group, const at::Tensor& own, std::span<const int64_t> bounds) {
  const auto size = static_cast<size_t>(group.size()), rank = static_cast<size_t>(group.rank());
  int64_t longest = 0;
  for (size_t r = 0; r < size; ++r) longest = std::max(longest, bounds[r + 1] - bounds[r]);
  at::Tensor whole = rank == 0 ? at::empty({bounds[size]}, own.options()) : at::Tensor();
  for (int64_t begin = 0; begin < longest; begin += kRound) {
    // What this round moves of each shard, and where it lies in the buffer of the round.
    std::vector<int64_t> places{0};
    const auto count = [&](size_t r) { return std::clamp<int64_t>(bounds[r + 1] - bounds[r] - begin, 0, kRound); };
    for (size_t r = 0; r < size; ++r) places.push_back(places.back() + count(r));
    at::Tensor round = at::empty({places.back()}, own.options());
    if (count(rank) > 0) round.narrow(0, places[rank], count(rank)).copy_(own.narrow(0, begin, count(rank)));
    group.gather(round, places);
    if (rank > 0) continue;
    for (size_t r = 0; r < size; ++r)
      if (count(r) > 0) whole.narrow(0, bounds[r] + begin, count(r)).copy_(round.narrow(0, places[r], count(r)));
  }
  return whole;
}

}  // namespace troupe
