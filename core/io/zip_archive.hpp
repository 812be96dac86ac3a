// Zip archives of stored (uncompressed) entries, zip64 included: what torch.save writes. Every place and length is
// checked against the file before it is used. Errors are std::runtime_error naming the archive and the entry.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/io/disk.hpp"

namespace troupe {

struct ZipEntry {
  uint64_t offset = 0;  // of its bytes in the archive
  uint64_t bytes = 0;
  uint32_t crc = 0;    // CRC-32
  bool stored = true;  // false: compressed or encrypted, its bytes say nothing here
};

using ZipDirectory = std::map<std::string, ZipEntry, std::less<>>;

// The entries of an archive. Two of one name are an error.
ZipDirectory read_zip_directory(const File& file, const std::string& origin);

// Writes an archive to a file that is empty: entries one after another, then finish(). The bytes of each entry begin at
// a multiple of 64. Not synced. One thread.
class ZipWriter {
 public:
  explicit ZipWriter(File& file) : file_(file) {}

  // Begins an entry; exactly `bytes` bytes with this CRC-32 are appended to the file by the caller afterwards.
  void begin(const std::string& name, uint64_t bytes, uint32_t crc);
  // A whole small entry.
  void add(const std::string& name, std::string_view content);
  // The directory at the end.
  void finish();

 private:
  struct Placed {
    std::string name;
    uint64_t header_offset;
    uint64_t bytes;
    uint32_t crc;
  };
  void append(std::string_view bytes);

  File& file_;
  uint64_t at_ = 0;
  std::vector<Placed> placed_;
};

}  // namespace troupe
