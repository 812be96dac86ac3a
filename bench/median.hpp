// Of several measurements the one in the middle: a busy moment does not move it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace troupe::bench {

inline double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace troupe::bench
