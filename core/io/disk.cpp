#include "core/io/disk.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace troupe {
namespace {

class RealFile final : public File {
 public:
  RealFile(std::filesystem::path path, int fd) : path_(std::move(path)), fd_(fd) {}
  RealFile(const RealFile&) = delete;
  ~RealFile() override { ::close(fd_); }

  std::size_t read_at(uint64_t offset, std::span<std::byte> out) const override {
    std::size_t done = 0;
    while (done < out.size()) {
      const ssize_t n = ::pread(fd_, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) throw DiskError("read", path_, errno);
      if (n == 0) break;
      done += static_cast<std::size_t>(n);
    }
    return done;
  }

  void append(std::span<const std::byte> bytes) override {
    refuse_after_failed_sync();
    std::size_t done = 0;
    while (done < bytes.size()) {
      const ssize_t n = ::write(fd_, bytes.data() + done, bytes.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) throw DiskError("write", path_, errno);
      done += static_cast<std::size_t>(n);
    }
  }

  void truncate(uint64_t size) override {
    if (::ftruncate(fd_, static_cast<off_t>(size)) != 0) throw DiskError("truncate", path_, errno);
  }

  void reserve(uint64_t bytes) override {
    if (bytes == 0) return;
    const int result = ::fallocate(fd_, FALLOC_FL_KEEP_SIZE, static_cast<off_t>(size()), static_cast<off_t>(bytes));
    if (result != 0 && errno != EOPNOTSUPP && errno != ENOSYS) throw DiskError("reserve space for", path_, errno);
  }

  void sync() override {
    refuse_after_failed_sync();
    // After a failure the kernel may have dropped the dirty pages and would report success the next time.
    if (::fdatasync(fd_) != 0) throw DiskError("sync", path_, failed_sync_ = errno);
  }

  uint64_t size() const override {
    struct stat info;
    if (::fstat(fd_, &info) != 0) throw DiskError("stat", path_, errno);
    return static_cast<uint64_t>(info.st_size);
  }

 private:
  void refuse_after_failed_sync() const {
    if (failed_sync_ != 0) throw DiskError("write after a failed sync to", path_, failed_sync_);
  }

  const std::filesystem::path path_;
  const int fd_;
  int failed_sync_ = 0;
};

class RealDisk final : public Disk {
 public:
  std::unique_ptr<File> open(const std::filesystem::path& path, OpenMode mode) override {
    int flags = O_CLOEXEC;
    if (mode == OpenMode::kRead) flags |= O_RDONLY;
    if (mode == OpenMode::kCreate) flags |= O_RDWR | O_APPEND | O_CREAT | O_TRUNC;
    if (mode == OpenMode::kAppend) flags |= O_RDWR | O_APPEND;
    const int fd = ::open(path.c_str(), flags, 0644);
    if (fd < 0) throw DiskError("open", path, errno);
    auto file = std::make_unique<RealFile>(path, fd);
    struct stat info;
    if (::fstat(fd, &info) == 0 && S_ISDIR(info.st_mode)) throw DiskError("open", path, EISDIR);
    return file;
  }

  void rename(const std::filesystem::path& from, const std::filesystem::path& to) override {
    if (::rename(from.c_str(), to.c_str()) == 0) return;
    if (errno == EISDIR) throw DiskError("replace", to, errno);
    throw DiskError("rename to " + to.string(), from, errno);
  }

  bool exchange(const std::filesystem::path& a, const std::filesystem::path& b) override {
    if (::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0) return true;
    if (errno == EINVAL || errno == ENOSYS) return false;
    throw DiskError("exchange with " + b.string(), a, errno);
  }

  void remove_all(const std::filesystem::path& path) override {
    std::error_code error;
    std::filesystem::remove_all(path, error);
    if (error) throw DiskError("remove", path, error.value());
  }

  bool exists(const std::filesystem::path& path) override {
    struct stat info;
    if (::stat(path.c_str(), &info) == 0) return true;
    if (errno == ENOENT || errno == ENOTDIR) return false;
    throw DiskError("stat", path, errno);
  }

  std::vector<std::string> list(const std::filesystem::path& folder) override {
    std::vector<std::string> names;
    DIR* dir = ::opendir(folder.c_str());
    if (dir == nullptr) throw DiskError("list", folder, errno);
    errno = 0;
    while (const dirent* entry = ::readdir(dir)) {
      const std::string name = entry->d_name;
      if (name != "." && name != "..") names.push_back(name);
    }
    const int error = errno;
    ::closedir(dir);
    if (error != 0) throw DiskError("list", folder, error);
    std::sort(names.begin(), names.end());
    return names;
  }

  void create_dirs(const std::filesystem::path& folder) override {
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    if (error) throw DiskError("create", folder, error.value());
  }

  void sync_dir(const std::filesystem::path& folder) override {
    const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) throw DiskError("open", folder, errno);
    const int error = ::fsync(fd) == 0 ? 0 : errno;
    ::close(fd);
    if (error != 0) throw DiskError("sync", folder, error);
  }
};

std::filesystem::path parent_of(const std::filesystem::path& path) {
  const auto parent = path.parent_path();
  return parent.empty() ? "." : parent;
}

}  // namespace

DiskError::DiskError(const std::string& operation, const std::filesystem::path& path, int error_number)
    : std::runtime_error("cannot " + operation + " " + path.string() + ": " + std::strerror(error_number)),
      error_number_(error_number) {}

Disk& real_disk() {
  static RealDisk disk;
  return disk;
}

std::string read_file(Disk& disk, const std::filesystem::path& path, uint64_t max_bytes) {
  const auto file = disk.open(path, OpenMode::kRead);
  const uint64_t size = file->size();
  if (size > max_bytes)
    throw std::invalid_argument(path.string() + ": " + std::to_string(size) + " bytes, more than the limit of " +
                                std::to_string(max_bytes));
  std::string text(size, '\0');
  text.resize(file->read_at(0, std::as_writable_bytes(std::span(text.data(), text.size()))));
  return text;
}

void write_file(Disk& disk, const std::filesystem::path& path, std::string_view bytes) {
  disk.open(path, OpenMode::kCreate)->append(std::as_bytes(std::span(bytes.data(), bytes.size())));
}

void write_file_atomically(Disk& disk, const std::filesystem::path& path, std::string_view bytes) {
  const std::filesystem::path aside = path.string() + ".tmp";
  auto file = disk.open(aside, OpenMode::kCreate);
  try {
    file->append(std::as_bytes(std::span(bytes.data(), bytes.size())));
    file->sync();
    file.reset();
    disk.rename(aside, path);
  } catch (...) {
    disk.remove_all(aside);
    throw;
  }
  disk.sync_dir(parent_of(path));
}

void replace_folder(Disk& disk, const std::filesystem::path& made, const std::filesystem::path& target) {
  disk.sync_dir(made);
  if (!disk.exists(target)) {
    disk.rename(made, target);
    disk.sync_dir(parent_of(target));
    return;
  }
  const std::filesystem::path old = target.string() + ".old";
  if (disk.exchange(made, target)) {
    disk.sync_dir(parent_of(target));
    disk.remove_all(made);
    return;
  }
  disk.remove_all(old);
  disk.rename(target, old);
  disk.rename(made, target);
  disk.sync_dir(parent_of(target));
  disk.remove_all(old);
}

void write_folder_atomically(Disk& disk, const std::filesystem::path& folder,
                             const std::function<void(const std::filesystem::path&)>& fill) {
  const std::filesystem::path clean = folder.has_filename() ? folder : folder.parent_path();
  const std::filesystem::path aside = clean.string() + ".tmp";
  disk.remove_all(aside);
  disk.create_dirs(aside);
  try {
    fill(aside);
    for (const std::string& name : disk.list(aside)) disk.open(aside / name, OpenMode::kAppend)->sync();
    replace_folder(disk, aside, clean);
  } catch (...) {
    disk.remove_all(aside);
    throw;
  }
}

}  // namespace troupe
