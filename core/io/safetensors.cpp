#include "core/io/safetensors.hpp"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/config.hpp"
#include "core/io/mapped_file.hpp"

namespace troupe {

namespace {

struct TypeName {
  std::string_view name;
  at::ScalarType type;
};
constexpr TypeName kTypes[] = {{"F32", at::kFloat}, {"BF16", at::kBFloat16}, {"F16", at::kHalf}, {"F64", at::kDouble},
                               {"I64", at::kLong},  {"I32", at::kInt},       {"U8", at::kByte},  {"BOOL", at::kBool}};

at::ScalarType type_of(const SafetensorsEntry& entry, const std::string& what) {
  for (const TypeName& t : kTypes)
    if (t.name == entry.dtype) return t.type;
  throw std::runtime_error(what + " has dtype " + entry.dtype + ", which is not read here");
}

std::string_view name_of(at::ScalarType type, const std::string& tensor) {
  for (const TypeName& t : kTypes)
    if (t.type == type) return t.name;
  throw std::invalid_argument("tensor \"" + tensor + "\" has dtype " + std::string(c10::toString(type)) +
                              ", which is not written to safetensors");
}

at::Tensor borrowed(const std::byte* data, const SafetensorsEntry& entry, at::ScalarType type,
                    std::shared_ptr<const void> owner) {
  at::Tensor view = at::from_blob(
      const_cast<std::byte*>(data), entry.shape, [owner](void*) {}, at::dtype(type));
  // Processors read misaligned numbers, C++ does not.
  return reinterpret_cast<std::uintptr_t>(data) % c10::elementSize(type) == 0 ? view : view.clone();
}

SafetensorsHeader read_header(const File& file, const std::filesystem::path& path) {
  std::array<std::byte, 8> first{};
  const uint64_t file_bytes = file.size();
  const std::size_t got = file.read_at(0, first);
  std::string json(safetensors_header_bytes(std::span(first).first(got), file_bytes, path.string()), '\0');
  if (file.read_at(8, std::as_writable_bytes(std::span(json.data(), json.size()))) != json.size())
    throw std::runtime_error(path.string() + ": cut short while it was read");
  return parse_safetensors_header(json, file_bytes, path.string());
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path)
    : path_(path), file_(real_disk().open(path, OpenMode::kRead)) {
  header_ = read_header(*file_, path_);
}
SafetensorsFile::~SafetensorsFile() = default;
SafetensorsFile::SafetensorsFile(SafetensorsFile&&) noexcept = default;

const SafetensorsEntry& SafetensorsFile::entry(const std::string& name) const {
  const auto it = header_.tensors.find(name);
  if (it == header_.tensors.end()) throw std::runtime_error(path_.string() + " has no tensor \"" + name + "\"");
  return it->second;
}

at::Tensor SafetensorsFile::read(const std::string& name, std::optional<at::ScalarType> dtype) const {
  const SafetensorsEntry& e = entry(name);
  const at::ScalarType type = type_of(e, path_.string() + ": tensor \"" + name + "\"");
  const bool convert = dtype && *dtype != type && c10::isFloatingType(type);
  at::Tensor out = at::empty(e.shape, at::dtype(convert ? *dtype : type));
  at::Tensor flat = out.view({-1});
  // In pieces that stay in the cache, so that converting costs no second pass over memory.
  const int64_t piece = convert ? std::min<int64_t>(flat.numel(), 1 << 19) : flat.numel();
  const at::Tensor buffer = convert ? at::empty({piece}, at::dtype(type)) : flat;
  const uint64_t item = c10::elementSize(type);
  for (int64_t at = 0; at < flat.numel(); at += piece) {
    const int64_t n = std::min(piece, flat.numel() - at);
    const std::span bytes(static_cast<std::byte*>(buffer.data_ptr()), static_cast<std::size_t>(n) * item);
    const uint64_t offset = header_.data_begin + e.begin + static_cast<uint64_t>(at) * item;
    if (file_->read_at(offset, bytes) != bytes.size())
      throw std::runtime_error(path_.string() + ": cut short while tensor \"" + name + "\" was read");
    if (convert) flat.narrow(0, at, n).copy_(buffer.narrow(0, 0, n));
  }
  return out;
}

at::Tensor SafetensorsFile::view(const std::string& name) const {
  const SafetensorsEntry& e = entry(name);
  const at::ScalarType type = type_of(e, path_.string() + ": tensor \"" + name + "\"");
  if (e.begin == e.end) return at::empty(e.shape, at::dtype(type));
  // Threads that meet here may map twice; the last mapping is kept, the other lives as long as its views.
  auto mapping = std::atomic_load(&mapping_);
  if (!mapping) {
    if (file_->size() < header_.data_begin + e.end) throw std::runtime_error(path_.string() + ": cut short");
    mapping = std::make_shared<MappedFile>(path_, file_->size());
    std::atomic_store(&mapping_, mapping);
  }
  return borrowed(mapping->data() + header_.data_begin + e.begin, e, type, mapping);
}

StateDict tensors_in(std::span<const std::byte> file, std::shared_ptr<const void> owner, const std::string& origin) {
  const uint64_t length =
      safetensors_header_bytes(file.first(std::min<std::size_t>(8, file.size())), file.size(), origin);
  const std::string_view json(reinterpret_cast<const char*>(file.data()) + 8, length);
  const SafetensorsHeader header = parse_safetensors_header(json, file.size(), origin);
  StateDict tensors;
  for (const auto& [name, e] : header.tensors) {
    const at::ScalarType type = type_of(e, origin + ": tensor \"" + name + "\"");
    tensors[name] = e.begin == e.end ? at::empty(e.shape, at::dtype(type))
                                     : borrowed(file.data() + header.data_begin + e.begin, e, type, owner);
  }
  return tensors;
}

// ---- sharded folders ------------------------------------------------------------------------------------------------

SafetensorsFolder::SafetensorsFolder(const std::filesystem::path& folder, const std::string& stem) {
  const std::filesystem::path single = folder / (stem + ".safetensors");
  const std::filesystem::path index = folder / (stem + ".safetensors.index.json");
  if (real_disk().exists(single)) {
    files_.push_back(std::make_unique<SafetensorsFile>(single));
    for (const auto& [name, entry] : files_.front()->header().tensors) tensors_[name] = files_.front().get();
    return;
  }
  if (!real_disk().exists(index))
    throw std::runtime_error(folder.string() + ": neither " + single.filename().string() + " nor " +
                             index.filename().string() + " is there (pickled .bin and .pt files are never read)");
  const JsonFile json = {parse_json_file(index), JsonPath(index.string())};
  const auto map = json.value.is_object() ? json.value.find("weight_map") : json.value.end();
  if (!json.value.is_object() || map == json.value.end() || !map->is_object())
    throw std::runtime_error(index.string() + ": weight_map: missing; expected an object");
  std::map<std::string, SafetensorsFile*> shards;
  for (const auto& [name, value] : map->items()) {
    const std::string shard = value.is_string() ? value.get<std::string>() : "";
    if (shard.empty() || shard.front() == '.' || shard.find_first_of(std::string("/\\\0", 3)) != shard.npos)
      throw std::runtime_error(index.string() + ": weight_map." + name +
                               ": expected the name of a file in this folder, found " + detail::found(value));
    auto& file = shards[shard];
    if (file == nullptr) file = files_.emplace_back(std::make_unique<SafetensorsFile>(folder / shard)).get();
    if (!file->contains(name))
      throw std::runtime_error(index.string() + ": weight_map." + name + ": " + shard + " has no such tensor");
    tensors_[name] = file;
  }
  for (const auto& file : files_)
    for (const auto& [name, entry] : file->header().tensors)
      if (const auto it = tensors_.find(name); it == tensors_.end() || it->second != file.get())
        throw std::runtime_error(index.string() + ": tensor \"" + name + "\" of " + file->path().filename().string() +
                                 " stands elsewhere or nowhere in weight_map");
}

const SafetensorsEntry& SafetensorsFolder::entry(const std::string& name) const {
  return tensors_.at(name)->header().tensors.find(name)->second;
}

at::Tensor SafetensorsFolder::read(const std::string& name, std::optional<at::ScalarType> dtype) const {
  return tensors_.at(name)->read(name, dtype);
}

// ---- writing --------------------------------------------------------------------------------------------------------

namespace {

struct Plan {
  struct Item {
    std::string name;
    at::Tensor tensor;
    at::ScalarType type;
    uint64_t bytes;
  };
  std::vector<Item> items;
  uint64_t data_bytes = 0;
  std::string header;
};

at::ScalarType stored_type(const at::Tensor& tensor, const SafetensorsOptions& options) {
  return options.dtype && tensor.is_floating_point() ? *options.dtype : tensor.scalar_type();
}

uint64_t stored_bytes(const at::Tensor& tensor, const SafetensorsOptions& options) {
  return static_cast<uint64_t>(tensor.numel()) * c10::elementSize(stored_type(tensor, options));
}

// Wider types first, so that every tensor is aligned to its own elements.
Plan plan_of(const StateDict& tensors, const SafetensorsOptions& options) {
  Plan plan;
  for (const auto& [name, tensor] : tensors)
    plan.items.push_back({name, tensor, stored_type(tensor, options), stored_bytes(tensor, options)});
  std::stable_sort(plan.items.begin(), plan.items.end(),
                   [](const auto& a, const auto& b) { return c10::elementSize(a.type) > c10::elementSize(b.type); });
  std::vector<std::pair<std::string, SafetensorsEntry>> entries;
  for (const Plan::Item& item : plan.items) {
    SafetensorsEntry entry{std::string(name_of(item.type, item.name)), item.tensor.sizes().vec(), plan.data_bytes,
                           plan.data_bytes + item.bytes};
    plan.data_bytes = entry.end;
    entries.emplace_back(item.name, std::move(entry));
  }
  plan.header = format_safetensors_header(entries, options.metadata);
  return plan;
}

void append_tensor(File& file, const Plan::Item& item) {
  const at::Tensor flat = item.tensor.detach().contiguous().view({-1});
  constexpr int64_t kPiece = 1 << 20;
  for (int64_t at = 0; at < flat.numel(); at += kPiece) {
    const at::Tensor piece = flat.narrow(0, at, std::min(kPiece, flat.numel() - at)).to(item.type).cpu();
    file.append({static_cast<const std::byte*>(piece.const_data_ptr()), piece.nbytes()});
  }
}

std::string shard_name(const std::string& stem, std::size_t i, std::size_t count) {
  char tail[64];
  std::snprintf(tail, sizeof tail, "-%05zu-of-%05zu.safetensors", i, count);
  return stem + tail;
}

void write_synced(Disk& disk, const std::filesystem::path& path, const StateDict& tensors,
                  const SafetensorsOptions& options) {
  const auto file = disk.open(path, OpenMode::kCreate);
  file->reserve(safetensors_bytes(tensors, options));
  write_safetensors(*file, tensors, options);
  file->sync();
}

}  // namespace

uint64_t safetensors_bytes(const StateDict& tensors, const SafetensorsOptions& options) {
  const Plan plan = plan_of(tensors, options);
  return plan.header.size() + plan.data_bytes;
}

void write_safetensors(File& file, const StateDict& tensors, const SafetensorsOptions& options) {
  const Plan plan = plan_of(tensors, options);
  file.append(std::as_bytes(std::span(plan.header.data(), plan.header.size())));
  for (const Plan::Item& item : plan.items) append_tensor(file, item);
}

void save_safetensors(Disk& disk, const std::filesystem::path& path, const StateDict& tensors,
                      const SafetensorsOptions& options) {
  const std::filesystem::path aside = path.string() + ".tmp";
  write_synced(disk, aside, tensors, options);
  disk.rename(aside, path);
  disk.sync_dir(path.has_parent_path() ? path.parent_path() : ".");
}

void save_sharded(Disk& disk, const std::filesystem::path& folder, const std::string& stem, const StateDict& tensors,
                  const SafetensorsOptions& options, uint64_t max_shard_bytes) {
  std::vector<StateDict> shards(1);
  uint64_t filled = 0, total = 0;
  for (const auto& [name, tensor] : tensors) {
    const uint64_t bytes = stored_bytes(tensor, options);
    if (filled > 0 && filled + bytes > max_shard_bytes) {
      shards.emplace_back();
      filled = 0;
    }
    shards.back()[name] = tensor;
    filled += bytes;
    total += bytes;
  }
  if (shards.size() == 1) return write_synced(disk, folder / (stem + ".safetensors"), tensors, options);
  OrderedJson index;
  index["metadata"]["total_size"] = total;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const std::string name = shard_name(stem, i + 1, shards.size());
    write_synced(disk, folder / name, shards[i], options);
    for (const auto& [tensor, value] : shards[i]) index["weight_map"][tensor] = name;
  }
  write_file_atomically(disk, folder / (stem + ".safetensors.index.json"), index.dump(2) + "\n");
}

}  // namespace troupe
