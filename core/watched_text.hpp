// A forward iterator over text that tells how far its reader has come: a JSON lexer takes only iterators and says
// nothing of its place while it reads.
#pragma once

#include <cstddef>
#include <iterator>

namespace troupe {

// `Progress` outlives the iterators and has `void reached(const char*)`, called with every new place; what it throws
// ends the reading.
template <class Progress>
struct WatchedChar {
  using iterator_category = std::forward_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;
  const char* at = nullptr;
  Progress* progress = nullptr;
  reference operator*() const { return *at; }
  WatchedChar& operator++() {
    progress->reached(++at);
    return *this;
  }
  WatchedChar operator++(int) {
    const WatchedChar before = *this;
    ++*this;
    return before;
  }
  friend bool operator==(const WatchedChar& a, const WatchedChar& b) { return a.at == b.at; }
  friend bool operator!=(const WatchedChar& a, const WatchedChar& b) { return a.at != b.at; }
};

}  // namespace troupe
