// A zeroed block of memory from the system, on huge pages where it can be: weights and caches are read from end to end,
// and small pages would cost a table walk every 4 KiB. Memory is touched on first use only.
#pragma once

#include <cstddef>
#include <utility>

namespace troupe {

class MemoryBlock {
 public:
  MemoryBlock() = default;
  explicit MemoryBlock(size_t bytes);  // throws std::runtime_error when the system has none
  ~MemoryBlock();
  MemoryBlock(MemoryBlock&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  MemoryBlock& operator=(MemoryBlock&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  // All zero again, and untouched: the memory goes back to the system until it is used.
  void discard();

  std::byte* data() const { return static_cast<std::byte*>(data_); }  // 64-byte aligned at least
  size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace troupe
