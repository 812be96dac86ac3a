// SHA-256 (FIPS 180-4), for names of small things: a manifest, a layout. About 200 MB/s; bulk data gets CRC-32C.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace troupe {

class Sha256 {
 public:
  void update(std::span<const std::byte> bytes);
  void update(std::string_view text);
  // The digest of everything so far; the object is used up.
  std::array<uint8_t, 32> finish();
  std::string finish_hex();  // 64 lower-case digits

 private:
  void block(const uint8_t* p);
  std::array<uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<uint8_t, 64> buffer_{};
  uint64_t length_ = 0;  // bytes
};

}  // namespace troupe
