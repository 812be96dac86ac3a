// The disk as everything durable sees it: small enough that a simulator can stand in, strict about what failed.
// Every failure throws DiskError naming the operation, the file and the system's reason.
// Threads: a Disk may be shared; a File belongs to one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace troupe {

class DiskError : public std::runtime_error {
 public:
  DiskError(const std::string& operation, const std::filesystem::path& path, int error_number);
  int error_number() const { return error_number_; }  // errno: ENOSPC, EIO, ...

 private:
  int error_number_;
};

enum class OpenMode {
  kRead,    // must exist
  kCreate,  // made anew; what it held is gone
  kAppend,  // must exist; kept, written at its end
};

class File {
 public:
  virtual ~File() = default;
  // Fills `out` from `offset`; returns fewer bytes only at the end of the file.
  virtual std::size_t read_at(uint64_t offset, std::span<std::byte> out) const = 0;
  // All of `bytes` or DiskError; part of them may then have been written.
  virtual void append(std::span<const std::byte> bytes) = 0;
  virtual void truncate(uint64_t size) = 0;
  // Makes sure that the next `bytes` bytes can be appended: ENOSPC comes here, before anything is written. The size
  // stays. A file system that cannot promise it promises nothing.
  virtual void reserve(uint64_t bytes) = 0;
  // Everything appended is durable. A sync that failed is final: what reached the disk is unknown, so every later
  // append and sync of this File throws as well.
  virtual void sync() = 0;
  virtual uint64_t size() const = 0;
};

class Disk {
 public:
  virtual ~Disk() = default;
  virtual std::unique_ptr<File> open(const std::filesystem::path& path, OpenMode mode) = 0;
  // Atomic; `to` may be an existing file or an empty folder.
  virtual void rename(const std::filesystem::path& from, const std::filesystem::path& to) = 0;
  // Two existing paths trade places atomically. False: this file system cannot.
  virtual bool exchange(const std::filesystem::path& a, const std::filesystem::path& b) = 0;
  virtual void remove_all(const std::filesystem::path& path) = 0;  // nothing there: nothing happens
  virtual bool exists(const std::filesystem::path& path) = 0;
  virtual std::vector<std::string> list(const std::filesystem::path& folder) = 0;  // names, sorted
  virtual void create_dirs(const std::filesystem::path& folder) = 0;
  virtual void sync_dir(const std::filesystem::path& folder) = 0;
};

// The machine's own.
Disk& real_disk();

// The whole file; throws std::invalid_argument when it is larger than max_bytes.
std::string read_file(Disk& disk, const std::filesystem::path& path, uint64_t max_bytes = 64u << 20);

// Made anew; not synced.
void write_file(Disk& disk, const std::filesystem::path& path, std::string_view bytes);

// Written aside, synced, renamed, folder synced: a reader sees the old bytes or the new ones, also after a crash. What
// could not be written to its end is removed.
void write_file_atomically(Disk& disk, const std::filesystem::path& path, std::string_view bytes);

// `made` (whose files are synced) takes the place of the folder `target`, which may exist.
void replace_folder(Disk& disk, const std::filesystem::path& made, const std::filesystem::path& target);

// `fill` writes files into the folder it is given; they are synced, and the folder takes the place of `folder`. When
// `fill` throws, `folder` is as it was.
void write_folder_atomically(Disk& disk, const std::filesystem::path& folder,
                             const std::function<void(const std::filesystem::path&)>& fill);

}  // namespace troupe
