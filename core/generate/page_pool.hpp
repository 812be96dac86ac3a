// Which pages of the key-value cache are free, and how many answers hold each of the others. Numbers only: the bytes
// are the decoder's. One thread.
#pragma once

#include <cstdint>
#include <vector>

namespace troupe {

class PagePool {
 public:
  explicit PagePool(int64_t num_pages);

  int64_t capacity() const { return static_cast<int64_t>(holders_.size()); }
  int64_t num_free() const { return static_cast<int64_t>(free_.size()); }

  // Takes n pages with one holder each; the caller has checked that num_free() >= n.
  std::vector<int32_t> take(int64_t n);
  void hold(int32_t page);     // one more holder
  void release(int32_t page);  // one holder less; free when none is left

 private:
  std::vector<int32_t> free_;     // taken from the back: pages used last are used again first, they are in the caches
  std::vector<int32_t> holders_;  // [capacity]
};

}  // namespace troupe
