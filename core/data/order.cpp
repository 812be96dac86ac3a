// An epoch's order is a keyed permutation of [0, n): a Feistel network over the smallest even number of bits that holds
// n, walked until the value falls below n (cycle walking; Black and Rogaway 2002). No list is kept, so any draw of any
// epoch costs the same.
#include <bit>
#include <stdexcept>

#include "core/data/mixing.hpp"
#include "core/data/prompts.hpp"

namespace troupe {
namespace {

constexpr int kRounds = 6;

uint64_t permuted(uint64_t index, uint64_t size, uint64_t key) {
  const int half_bits = (std::bit_width(size - 1) + 1) / 2;
  const uint64_t mask = (uint64_t{1} << half_bits) - 1;
  do {
    uint64_t left = index >> half_bits;
    uint64_t right = index & mask;
    for (int round = 0; round < kRounds; ++round) {
      const uint64_t next = left ^ (mixed(key + static_cast<uint64_t>(round), right) & mask);
      left = right;
      right = next;
    }
    index = left << half_bits | right;
  } while (index >= size);
  return index;
}

}  // namespace

PromptOrder::PromptOrder(uint64_t seed, uint64_t num_prompts) : seed_(seed), num_prompts_(num_prompts) {
  if (num_prompts == 0) throw std::invalid_argument("there are no prompts to draw from");
}

uint64_t PromptOrder::prompt_of(uint64_t draw) const {
  if (num_prompts_ == 1) return 0;
  return permuted(draw % num_prompts_, num_prompts_, mixed(seed_, epoch_of(draw)));
}

}  // namespace troupe
