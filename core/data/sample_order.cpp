#include "core/data/sample_order.hpp"

#include <limits>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>

namespace troupe {

// torch's generator on the CPU is the 32-bit Mersenne Twister of the standard, seeded with the seed's low half, and
// randperm a Fisher-Yates shuffle from the front, which takes a remainder (and its bias).
std::vector<int64_t> torch_permutation(int64_t n, uint64_t seed) {
  if (n < 0) throw std::invalid_argument("a permutation of " + std::to_string(n) + " numbers");
  std::vector<int64_t> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), int64_t{0});
  std::mt19937 generator(static_cast<uint32_t>(seed));
  // Beyond this torch draws 64 bits, so that the remainder stays nearly fair.
  const bool wide = n >= int64_t{std::numeric_limits<uint32_t>::max()} / 20;
  for (int64_t i = 0; i + 1 < n; ++i) {
    uint64_t draw = generator();
    if (wide) draw = draw << 32 | generator();
    std::swap(order[static_cast<std::size_t>(i)],
              order[static_cast<std::size_t>(i) + draw % static_cast<uint64_t>(n - i)]);
  }
  return order;
}

std::vector<int64_t> epoch_order(int64_t num_samples, int64_t epoch, int rank, int world_size) {
  if (world_size < 1 || rank < 0 || rank >= world_size)
    throw std::invalid_argument("rank " + std::to_string(rank) + " of " + std::to_string(world_size) + " processes");
  if (world_size == 1) return torch_permutation(num_samples, 42 + static_cast<uint64_t>(epoch));
  const std::vector<int64_t> all = torch_permutation(num_samples, static_cast<uint64_t>(epoch));
  std::vector<int64_t> mine;
  if (all.empty()) return mine;
  const int64_t rounds = (num_samples + world_size - 1) / world_size;
  for (int64_t round = 0; round < rounds; ++round)
    mine.push_back(all[static_cast<std::size_t>((round * world_size + rank) % num_samples)]);
  return mine;
}

}  // namespace troupe
