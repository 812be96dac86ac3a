#include "core/data/sample_order.hpp"

#include <limits>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>

namespace troupe {

// torch's generator on the CPU is the 32-bit Mersenne Twister of the standard, seeded with the seed's low half.
// randperm is a Fisher-Yates shuffle that takes remainders (and their bias): from the front with 32 bits a draw, or,
// for so many numbers that the bias would tell, inside out with 64 bits.
std::vector<int64_t> torch_permutation(int64_t n, uint64_t seed) {
  if (n < 0) throw std::invalid_argument("a permutation of " + std::to_string(n) + " numbers");
  std::vector<int64_t> order(static_cast<std::size_t>(n));
  std::mt19937 generator(static_cast<uint32_t>(seed));
  const auto size = static_cast<uint64_t>(n);
  if (size < std::numeric_limits<uint32_t>::max() / 20) {
    std::iota(order.begin(), order.end(), int64_t{0});
    for (uint64_t i = 0; i + 1 < size; ++i) std::swap(order[i], order[i + generator() % (size - i)]);
    return order;
  }
  for (uint64_t i = 0; i < size; ++i) {
    const uint64_t high = generator();
    const uint64_t other = (high << 32 | generator()) % (i + 1);
    order[i] = order[other];
    order[other] = static_cast<int64_t>(i);
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
