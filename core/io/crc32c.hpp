// CRC-32C (Castagnoli), as in iSCSI, ext4 and TensorFlow records: crc32c("123456789") == 0xE3069283.
// The processor's instruction where it has one (about 20 GB/s), else a table. Thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace troupe {

// Of `bytes`; `crc` continues an earlier result: crc32c(b, crc32c(a)) == crc32c(ab).
uint32_t crc32c(std::span<const std::byte> bytes, uint32_t crc = 0);

// The same, and copies the bytes to `to` in the same pass, past the cache: for what is larger than it.
uint32_t crc32c_copy(std::span<const std::byte> bytes, std::byte* to, uint32_t crc = 0);

// The same by table alone, whatever the processor.
uint32_t crc32c_portable(std::span<const std::byte> bytes, uint32_t crc = 0);

}  // namespace troupe
