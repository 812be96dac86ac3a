#include "core/generate/memory_block.hpp"

#include <sys/mman.h>

#include <cstring>
#include <stdexcept>
#include <string>

namespace troupe {
namespace {
constexpr size_t kHugePageBytes = size_t{2} << 20;
}

MemoryBlock::MemoryBlock(size_t bytes) {
  if (bytes == 0) return;
  const size_t unit = bytes >= kHugePageBytes ? kHugePageBytes : 4096;
  bytes_ = (bytes + unit - 1) / unit * unit;
  data_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data_ == MAP_FAILED) {
    data_ = nullptr;
    throw std::runtime_error("no memory for a block of " + std::to_string(bytes_) + " bytes");
  }
  if (unit == kHugePageBytes) madvise(data_, bytes_, MADV_HUGEPAGE);  // a hint: small pages serve as well
}

void MemoryBlock::discard() {
  // Locked pages can't be given back.
  if (data_ && madvise(data_, bytes_, MADV_DONTNEED) != 0) std::memset(data_, 0, bytes_);
}

MemoryBlock::~MemoryBlock() {
  if (data_) munmap(data_, bytes_);
}

}  // namespace troupe
