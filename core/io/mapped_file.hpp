// A file's bytes in memory, read-only. One that another process cuts short while it is mapped ends this process
// (SIGBUS). Immutable; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>

namespace troupe {

class MappedFile {
 public:
  // `bytes` > 0: how many of it. Throws DiskError.
  MappedFile(const std::filesystem::path& path, uint64_t bytes);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::byte* data() const { return data_; }
  uint64_t size() const { return bytes_; }
  void advise(int advice) const;  // the system, MADV_SEQUENTIAL and its kin

 private:
  const std::byte* data_ = nullptr;
  uint64_t bytes_;
};

}  // namespace troupe
