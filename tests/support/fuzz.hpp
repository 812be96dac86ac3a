// How long the tests of mutated input run: by default briefly, with TROUPE_FUZZ_TIMES=N on N times as many inputs; with
// TROUPE_FUZZ_SEED=N on others.
#pragma once

#include <cstdint>
#include <cstdlib>

namespace troupe::fuzz {

inline uint64_t setting(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

inline uint64_t inputs(uint64_t by_default) {
  return by_default * setting("TROUPE_FUZZ_TIMES", 1);
}

inline uint64_t seed(uint64_t of_the_test) {
  return of_the_test + 1000 * setting("TROUPE_FUZZ_SEED", 0);
}

}  // namespace troupe::fuzz
