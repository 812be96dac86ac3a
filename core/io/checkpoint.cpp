#include "core/io/checkpoint.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <charconv>
#include <cstdio>

#include "core/config.hpp"
#include "core/io/crc32c.hpp"
#include "core/io/safetensors.hpp"
#include "core/io/sha256.hpp"

namespace troupe {
namespace {

constexpr uint64_t kFormat = 1;
constexpr uint64_t kChunkBytes = 4 << 20;
constexpr const char* kManifestName = "manifest.json";

struct ManifestFile {
  Required<std::string> name;
  Required<uint64_t> bytes;
  Required<std::vector<uint32_t>> crc32c;  // of each chunk
  static constexpr std::tuple kFields{Field{"name", &ManifestFile::name}, Field{"bytes", &ManifestFile::bytes},
                                      Field{"crc32c", &ManifestFile::crc32c}};
};
TROUPE_FIELDS_COMPLETE(ManifestFile);

struct Manifest {
  Required<uint64_t> format;
  Required<std::string> run;
  Required<uint64_t> epoch;
  Required<uint64_t> step;
  Required<uint64_t> journal_offset;
  Required<std::string> extra;
  Required<uint64_t> chunk_bytes;
  Required<std::vector<ManifestFile>> files;
  Required<std::string> digest;  // hex SHA-256 of the manifest whose digest is ""
  static constexpr std::tuple kFields{Field{"format", &Manifest::format},
                                      Field{"run", &Manifest::run},
                                      Field{"epoch", &Manifest::epoch},
                                      Field{"step", &Manifest::step},
                                      Field{"journal_offset", &Manifest::journal_offset},
                                      Field{"extra", &Manifest::extra},
                                      Field{"chunk_bytes", &Manifest::chunk_bytes},
                                      Field{"files", &Manifest::files},
                                      Field{"digest", &Manifest::digest}};
};
TROUPE_FIELDS_COMPLETE(Manifest);

std::string text_of(const Manifest& manifest) {
  return to_json(manifest).dump(1) + "\n";
}

std::string digest_of(Manifest manifest) {
  manifest.digest.value.clear();
  Sha256 hash;
  hash.update(text_of(manifest));
  return hash.finish_hex();
}

std::string step_name(uint64_t step) {
  char name[40];
  std::snprintf(name, sizeof name, "step-%06llu", static_cast<unsigned long long>(step));
  return name;
}

// The step of a folder's name; none for any other name (step-000007.tmp, notes.txt).
std::optional<uint64_t> step_of(const std::string& name) {
  uint64_t step = 0;
  if (!name.starts_with("step-")) return std::nullopt;
  const auto parsed = std::from_chars(name.data() + 5, name.data() + name.size(), step);
  if (parsed.ec != std::errc() || name != step_name(step)) return std::nullopt;
  return step;
}

// Passes on what is appended and takes the checksum of every chunk on the way.
class ChecksummedFile final : public File {
 public:
  explicit ChecksummedFile(std::unique_ptr<File> file) : file_(std::move(file)) {}
  std::size_t read_at(uint64_t offset, std::span<std::byte> out) const override { return file_->read_at(offset, out); }
  void append(std::span<const std::byte> bytes) override {
    file_->append(bytes);
    while (!bytes.empty()) {
      if (size_ % kChunkBytes == 0) crcs_.push_back(0);
      const std::size_t take = std::min<uint64_t>(bytes.size(), kChunkBytes - size_ % kChunkBytes);
      crcs_.back() = crc32c(bytes.first(take), crcs_.back());
      size_ += take;
      bytes = bytes.subspan(take);
    }
  }
  void truncate(uint64_t) override { throw std::logic_error("a checksummed file only grows"); }
  void reserve(uint64_t bytes) override { file_->reserve(bytes); }
  void sync() override { file_->sync(); }
  uint64_t size() const override { return size_; }
  const std::vector<uint32_t>& crcs() const { return crcs_; }

 private:
  const std::unique_ptr<File> file_;
  uint64_t size_ = 0;
  std::vector<uint32_t> crcs_;
};

ManifestFile write_part(Disk& disk, const std::filesystem::path& path, const StateDict& tensors) {
  ChecksummedFile file(disk.open(path, OpenMode::kCreate));
  file.reserve(safetensors_bytes(tensors));
  write_safetensors(file, tensors);
  file.sync();
  return {{path.filename().string()}, {file.size()}, {file.crcs()}};
}

void check_part_name(const std::string& name) {
  if (name.empty() || name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") != name.npos)
    throw std::invalid_argument("checkpoint part \"" + name + "\": names are made of a-z, 0-9 and _");
}

// Reads a file chunk by chunk against its checksums; keeps the bytes when `into` is not null.
void read_chunks(Disk& disk, const std::filesystem::path& path, const ManifestFile& entry, std::byte* into) {
  const auto file = disk.open(path, OpenMode::kRead);
  const uint64_t bytes = *entry.bytes;
  if (file->size() != bytes)
    throw std::runtime_error(path.string() + ": " + std::to_string(file->size()) + " bytes, the manifest says " +
                             std::to_string(bytes));
  at::parallel_for(0, static_cast<int64_t>(entry.crc32c->size()), 1, [&](int64_t begin, int64_t end) {
    std::vector<std::byte> own(into == nullptr ? std::min(bytes, kChunkBytes) : 0);
    for (int64_t i = begin; i < end; ++i) {
      const uint64_t offset = static_cast<uint64_t>(i) * kChunkBytes;
      const std::size_t n = std::min(kChunkBytes, bytes - offset);
      const std::span<std::byte> chunk(into == nullptr ? own.data() : into + offset, n);
      if (file->read_at(offset, chunk) != n || crc32c(chunk) != (*entry.crc32c)[static_cast<std::size_t>(i)])
        throw std::runtime_error(path.string() + ": chunk " + std::to_string(i) + " of " +
                                 std::to_string(entry.crc32c->size()) + " is damaged");
    }
  });
}

Manifest read_manifest(Disk& disk, const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / kManifestName;
  if (!disk.exists(path)) throw std::runtime_error(path.string() + " is missing");
  const std::string text = read_file(disk, path);
  const auto manifest = from_json<Manifest>(parse_json(text, path.string()), JsonPath(path.string()));
  // Equal texts too: so a flipped bit in white space or in a number's notation is noticed like any other.
  if (*manifest.digest != digest_of(manifest) || text != text_of(manifest))
    throw std::runtime_error(path.string() + " is damaged: it does not match its digest");
  if (*manifest.format != kFormat || *manifest.chunk_bytes != kChunkBytes)
    throw std::runtime_error(path.string() + ": format " + std::to_string(*manifest.format) + " is not read here");
  if (folder.filename() != step_name(*manifest.step))
    throw std::runtime_error(path.string() + " is of step " + std::to_string(*manifest.step));
  for (const ManifestFile& file : *manifest.files) {
    const std::string name = *file.name;
    if (!name.ends_with(".safetensors")) throw std::runtime_error(path.string() + ": a file named \"" + name + "\"");
    check_part_name(name.substr(0, name.size() - 12));
    if (file.crc32c->size() != *file.bytes / kChunkBytes + (*file.bytes % kChunkBytes != 0))
      throw std::runtime_error(path.string() + ": " + name + " has " + std::to_string(file.crc32c->size()) +
                               " checksums for " + std::to_string(*file.bytes) + " bytes");
  }
  return manifest;
}

void verify_checkpoint(Disk& disk, const std::filesystem::path& folder) {
  const Manifest manifest = read_manifest(disk, folder);
  for (const ManifestFile& file : *manifest.files) read_chunks(disk, folder / *file.name, file, nullptr);
}

// Once the new checkpoint is known to be readable: the oldest go, and those of later steps, which belong to a course of
// the run that was given up when it went on from an earlier one.
void remove_superseded(Disk& disk, const std::filesystem::path& folder, uint64_t step, int keep) {
  std::vector<uint64_t> steps;
  for (const auto& path : list_checkpoints(disk, folder)) steps.push_back(*step_of(path.filename().string()));
  std::vector<uint64_t> gone;
  std::sort(steps.begin(), steps.end());
  const auto end = std::upper_bound(steps.begin(), steps.end(), step);
  const auto excess = std::max<std::ptrdiff_t>(0, (end - steps.begin()) - std::max(keep, 1));
  gone.insert(gone.end(), steps.begin(), steps.begin() + excess);
  gone.insert(gone.end(), end, steps.end());
  if (gone.empty()) return;
  verify_checkpoint(disk, folder / step_name(step));
  for (const uint64_t s : gone) disk.remove_all(folder / step_name(s));
  disk.sync_dir(folder);
}

}  // namespace

std::filesystem::path write_checkpoint(Disk& disk, const std::filesystem::path& folder, const CheckpointMeta& meta,
                                       const CheckpointParts& parts, int keep) {
  const std::filesystem::path target = folder / step_name(meta.step);
  const std::filesystem::path aside = target.string() + ".tmp";
  disk.create_dirs(folder);
  for (const std::string& name : disk.list(folder))
    if (name.starts_with("step-") && name.ends_with(".tmp")) disk.remove_all(folder / name);
  disk.create_dirs(aside);
  try {
    Manifest manifest{{kFormat},    {meta.run},    {meta.epoch}, {meta.step}, {meta.journal_offset},
                      {meta.extra}, {kChunkBytes}, {},           {}};
    for (const auto& [name, tensors] : parts) {
      check_part_name(name);
      manifest.files.value.push_back(write_part(disk, aside / (name + ".safetensors"), tensors));
    }
    manifest.digest.value = digest_of(manifest);
    const std::string text = text_of(manifest);
    const auto file = disk.open(aside / kManifestName, OpenMode::kCreate);
    file->append(std::as_bytes(std::span(text.data(), text.size())));
    file->sync();
    replace_folder(disk, aside, target);
  } catch (...) {
    // Makes room again after ENOSPC. When this fails too, the next write does it.
    try {
      disk.remove_all(aside);
    } catch (const DiskError&) {
    }
    throw;
  }
  remove_superseded(disk, folder, meta.step, keep);
  return target;
}

LoadedCheckpoint load_checkpoint(Disk& disk, const std::filesystem::path& step_folder) {
  const Manifest manifest = read_manifest(disk, step_folder);
  LoadedCheckpoint loaded{
      {*manifest.run, *manifest.epoch, *manifest.step, *manifest.journal_offset, *manifest.extra}, {}, step_folder, {}};
  for (const ManifestFile& file : *manifest.files) {
    const std::filesystem::path path = step_folder / *file.name;
    // The size is believed only when the file has it, so that a damaged manifest cannot ask for any memory.
    if (disk.open(path, OpenMode::kRead)->size() != *file.bytes)
      throw std::runtime_error(path.string() + " does not have the " + std::to_string(*file.bytes) +
                               " bytes that the manifest says");
    auto memory = std::make_shared<at::Tensor>(at::empty({static_cast<int64_t>(*file.bytes)}, at::kByte));
    auto* data = static_cast<std::byte*>(memory->data_ptr());
    read_chunks(disk, path, file, data);
    loaded.parts[path.stem().string()] = tensors_in({data, *file.bytes}, memory, path.string());
  }
  return loaded;
}

std::optional<LoadedCheckpoint> load_newest_checkpoint(Disk& disk, const std::filesystem::path& folder,
                                                       const std::string& run) {
  std::vector<std::filesystem::path> found = list_checkpoints(disk, folder);
  if (found.empty()) return std::nullopt;
  std::vector<std::string> rejected;
  for (auto path = found.rbegin(); path != found.rend(); ++path) {
    try {
      LoadedCheckpoint loaded = load_checkpoint(disk, *path);
      if (!run.empty() && loaded.meta.run != run)
        throw std::runtime_error((*path / kManifestName).string() + " is of run \"" + loaded.meta.run + "\", not \"" +
                                 run + "\"");
      loaded.rejected = std::move(rejected);
      return loaded;
    } catch (const std::exception& e) {
      rejected.push_back(e.what());
    }
  }
  std::string all;
  for (const std::string& reason : rejected) all += "\n  " + reason;
  throw std::runtime_error(folder.string() + ": none of its " + std::to_string(found.size()) +
                           " checkpoints can be loaded:" + all);
}

std::vector<std::filesystem::path> list_checkpoints(Disk& disk, const std::filesystem::path& folder) {
  std::vector<std::pair<uint64_t, std::filesystem::path>> found;
  if (disk.exists(folder))
    for (const std::string& name : disk.list(folder))
      if (const auto step = step_of(name)) found.emplace_back(*step, folder / name);
  std::sort(found.begin(), found.end());
  std::vector<std::filesystem::path> paths;
  for (auto& [step, path] : found) paths.push_back(std::move(path));
  return paths;
}

}  // namespace troupe
