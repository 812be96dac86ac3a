// Which samples a process trains on, and when: a pure function of (seed, epoch, size, rank, world size).
#pragma once

#include <cstdint>
#include <vector>

namespace troupe {

// torch.randperm(n) after torch.manual_seed(seed) on the CPU: the same numbers.
std::vector<int64_t> torch_permutation(int64_t n, uint64_t seed);

// The samples of one epoch (0-based) for one process, in order, as MiniMind draws them: alone, a permutation seeded
// with 42 + epoch; of several processes, a permutation seeded with epoch (torch's DistributedSampler), padded with its
// own head to a multiple of world_size, of which rank r takes r, r + world_size, ...
std::vector<int64_t> epoch_order(int64_t num_samples, int64_t epoch, int rank, int world_size);

}  // namespace troupe
