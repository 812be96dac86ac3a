#include "core/generate/page_pool.hpp"

#include <stdexcept>
#include <string>

namespace troupe {

PagePool::PagePool(int64_t num_pages) : holders_(static_cast<size_t>(num_pages), 0) {
  for (int64_t page = num_pages - 1; page >= 0; --page) free_.push_back(static_cast<int32_t>(page));
}

std::vector<int32_t> PagePool::take(int64_t n) {
  if (n > num_free())
    throw std::logic_error("asked for " + std::to_string(n) + " pages, " + std::to_string(num_free()) + " are free");
  std::vector<int32_t> pages;
  for (int64_t i = 0; i < n; ++i) {
    pages.push_back(free_.back());
    free_.pop_back();
    holders_[static_cast<size_t>(pages.back())] = 1;
  }
  return pages;
}

void PagePool::hold(int32_t page) {
  ++holders_.at(static_cast<size_t>(page));
}

void PagePool::release(int32_t page) {
  int32_t& holders = holders_.at(static_cast<size_t>(page));
  if (holders < 1) throw std::logic_error("page " + std::to_string(page) + " released twice");
  if (--holders == 0) free_.push_back(page);
}

}  // namespace troupe
