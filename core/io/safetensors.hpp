// The safetensors format: u64 header length, JSON header, tensor bytes. Reading trusts nothing: the header's length and
// grammar, duplicate names, every offset (sorted, contiguous, no hole, no overlap, the last one the file's end), every
// product of a shape are checked before anything is allocated or mapped. Errors are std::runtime_error naming the file
// and the tensor. Objects are immutable once open, so threads may share them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/io/disk.hpp"
#include "core/io/safetensors_header.hpp"
#include "core/models/state_dict.hpp"

namespace troupe {

class MappedFile;

class SafetensorsFile {
 public:
  // Reads and checks the header.
  explicit SafetensorsFile(const std::filesystem::path& path);
  ~SafetensorsFile();
  SafetensorsFile(SafetensorsFile&&) noexcept;

  const SafetensorsHeader& header() const { return header_; }
  const std::filesystem::path& path() const { return path_; }
  bool contains(std::string_view name) const { return header_.tensors.contains(name); }

  // A copy in memory of its own; floating-point tensors converted to `dtype` when given (round to nearest even).
  // A file cut short meanwhile is an error. F32 F16 BF16 F64 I64 I32 U8 BOOL; other types throw.
  at::Tensor read(const std::string& name, std::optional<at::ScalarType> dtype = std::nullopt) const;

  // The mapped bytes themselves, never to be written to; lives on its own. A file that another process cuts short while
  // it is mapped ends this process (SIGBUS): for files nobody touches. Misaligned tensors are copied.
  at::Tensor view(const std::string& name) const;

 private:
  const SafetensorsEntry& entry(const std::string& name) const;

  std::filesystem::path path_;
  SafetensorsHeader header_;
  std::shared_ptr<File> file_;
  mutable std::shared_ptr<MappedFile> mapping_;
};

// Tensors inside bytes that are already in memory (a whole file, verified by its reader); they share `owner`.
StateDict tensors_in(std::span<const std::byte> file, std::shared_ptr<const void> owner, const std::string& origin);

// The tensors of FOLDER/STEM.safetensors, or of the shards that FOLDER/STEM.safetensors.index.json lists. Shards lie in
// the folder itself; every tensor stands in the index and in its shard, or the folder is refused.
class SafetensorsFolder {
 public:
  explicit SafetensorsFolder(const std::filesystem::path& folder, const std::string& stem = "model");

  const std::map<std::string, const SafetensorsFile*, std::less<>>& tensors() const { return tensors_; }
  const SafetensorsEntry& entry(const std::string& name) const;
  at::Tensor read(const std::string& name, std::optional<at::ScalarType> dtype = std::nullopt) const;

 private:
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, const SafetensorsFile*, std::less<>> tensors_;
};

// ---- writing --------------------------------------------------------------------------------------------------------

struct SafetensorsOptions {
  std::optional<at::ScalarType> dtype;  // floating-point tensors are converted to it while they are written
  std::map<std::string, std::string> metadata = {{"format", "pt"}};
};

// Bytes that write_safetensors would write.
uint64_t safetensors_bytes(const StateDict& tensors, const SafetensorsOptions& options = {});

// Appends a whole safetensors file to `file`; tensor bytes begin at a multiple of 64. Not synced.
void write_safetensors(File& file, const StateDict& tensors, const SafetensorsOptions& options = {});

// A file of its own, written aside and renamed.
void save_safetensors(Disk& disk, const std::filesystem::path& path, const StateDict& tensors,
                      const SafetensorsOptions& options = {});

// FOLDER/STEM.safetensors, or shards of at most max_shard_bytes of tensors (a larger tensor has one to itself) with
// their index; files are synced, the folder is not.
void save_sharded(Disk& disk, const std::filesystem::path& folder, const std::string& stem, const StateDict& tensors,
                  const SafetensorsOptions& options = {}, uint64_t max_shard_bytes = 5'000'000'000);

}  // namespace troupe
