#include "core/io/mapped_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "core/io/disk.hpp"

namespace troupe {

MappedFile::MappedFile(const std::filesystem::path& path, uint64_t bytes) : bytes_(bytes) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw DiskError("open", path, errno);
  void* at = ::mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
  const int error = errno;
  ::close(fd);
  if (at == MAP_FAILED) throw DiskError("map", path, error);
  data_ = static_cast<const std::byte*>(at);
}

MappedFile::~MappedFile() {
  ::munmap(const_cast<std::byte*>(data_), bytes_);
}

void MappedFile::advise(int advice) const {
  ::madvise(const_cast<std::byte*>(data_), bytes_, advice);
}

}  // namespace troupe
