// Random numbers as a pure function of what they are for: the finaliser of splitmix64 (Steele, Lea, Flood 2014).
#pragma once

#include <cstdint>

namespace troupe {

constexpr uint64_t mixed(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

constexpr uint64_t mixed(uint64_t a, uint64_t b) {
  return mixed(mixed(a) ^ b);
}

}  // namespace troupe
