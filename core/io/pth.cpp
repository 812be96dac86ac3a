#include "core/io/pth.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <set>
#include <span>

#include "core/io/crc32.hpp"
#include "core/io/pickle.hpp"
#include "core/io/zip_archive.hpp"

namespace troupe {
namespace {

constexpr uint64_t kMaxPickleBytes = 16u << 20;
constexpr int kMaxNesting = 64;
constexpr std::size_t kMaxDimensions = 64;
constexpr int64_t kPiece = 1 << 20;  // elements handled at once, so that converting costs no second pass over memory

struct StorageType {
  std::string_view name;
  at::ScalarType type;
};
constexpr StorageType kStorageTypes[] = {{"torch.FloatStorage", at::kFloat},       {"torch.HalfStorage", at::kHalf},
                                         {"torch.BFloat16Storage", at::kBFloat16}, {"torch.DoubleStorage", at::kDouble},
                                         {"torch.LongStorage", at::kLong},         {"torch.IntStorage", at::kInt},
                                         {"torch.ShortStorage", at::kShort},       {"torch.CharStorage", at::kChar},
                                         {"torch.ByteStorage", at::kByte},         {"torch.BoolStorage", at::kBool}};

// A tensor as the file describes it, checked.
struct TensorPlace {
  std::string entry;  // of the archive
  at::ScalarType type;
  std::vector<int64_t> sizes, strides;
  int64_t offset = 0;  // in elements of the storage
  int64_t numel = 1;
  int64_t extent = 0;  // elements from the offset to the last one used
};

// ---- what the pickle says -------------------------------------------------------------------------------------------

[[noreturn]] void refuse(const std::string& reason) {
  throw std::runtime_error(reason);
}

template <class T>
const T& expect(const PickleValue& value, const char* what) {
  const T* found = std::get_if<T>(&value);
  if (found == nullptr) refuse(std::string("expected ") + what + ", found " + kind_of(value));
  return *found;
}

const PickleValue& argument(const PickleCall& call, std::size_t index) {
  if (index >= call.arguments->items.size()) refuse(call.name + " has too few arguments");
  return call.arguments->items[index];
}

std::vector<int64_t> whole_numbers(const PickleValue& value, const char* what) {
  std::vector<int64_t> numbers;
  const PickleList& list = *expect<const PickleList*>(value, what);
  if (list.items.size() > kMaxDimensions) refuse(std::string(what) + " of more than 64 dimensions");
  for (const PickleValue& item : list.items) {
    numbers.push_back(expect<int64_t>(item, "an integer"));
    if (numbers.back() < 0) refuse(std::string("a negative number in ") + what);
  }
  return numbers;
}

// Fills numel and extent; no sum and no product overflows. The storage's size is what the pickle claims of it.
void measure(TensorPlace& place, int64_t storage_numel) {
  const std::string of_storage = " its storage of " + std::to_string(storage_numel) + " elements";
  bool overflow = false;
  for (const int64_t size : place.sizes)
    overflow |= __builtin_mul_overflow(place.numel, std::max<int64_t>(size, 1), &place.numel);
  if (std::count(place.sizes.begin(), place.sizes.end(), 0) > 0) {
    if (overflow) refuse("a shape whose product does not fit in 64 bits");
    place.numel = 0;
    return;
  }
  int64_t last = 0;
  for (std::size_t i = 0; i < place.sizes.size(); ++i) {
    int64_t step = 0;
    overflow |= __builtin_mul_overflow(place.sizes[i] - 1, place.strides[i], &step);
    overflow |= __builtin_add_overflow(last, step, &last);
  }
  if (overflow || place.offset >= storage_numel || last >= storage_numel - place.offset)
    refuse("reaches outside" + of_storage);
  place.extent = last + 1;
}

TensorPlace tensor_place(const PickleCall& call, const std::string& prefix) {
  const PickleCall& storage = *expect<const PickleCall*>(argument(call, 0), "a storage");
  if (!storage.name.empty()) refuse("expected a storage, found an object made by " + storage.name);
  if (storage.arguments->items.size() < 5 ||
      *expect<const std::string*>(argument(storage, 0), "\"storage\"") != "storage")
    refuse("a storage of an unknown kind");
  TensorPlace place;
  const std::string& type_name = *expect<PickleGlobal>(argument(storage, 1), "a storage's type").name;
  const auto* type = std::find_if(std::begin(kStorageTypes), std::end(kStorageTypes),
                                  [&](const StorageType& t) { return t.name == type_name; });
  if (type == std::end(kStorageTypes)) refuse("storages of type " + type_name + " are not read here");
  place.type = type->type;
  place.entry = prefix + "data/" + *expect<const std::string*>(argument(storage, 2), "a storage's key");
  const int64_t storage_numel = expect<int64_t>(argument(storage, 4), "a storage's size");
  place.offset = expect<int64_t>(argument(call, 1), "an offset");
  place.sizes = whole_numbers(argument(call, 2), "a shape");
  place.strides = whole_numbers(argument(call, 3), "strides");
  if (place.offset < 0 || storage_numel < 0) refuse("a negative offset or size");
  if (place.sizes.size() != place.strides.size()) refuse("as many strides as dimensions are needed");
  measure(place, storage_numel);
  return place;
}

// Walks the document and collects its tensors under their joined names.
class Collector {
 public:
  Collector(const std::string& prefix, std::size_t max_values) : prefix_(prefix), values_left_(max_values) {}

  void collect(const PickleValue& value, const std::string& name, int depth) {
    // A container that stands in itself or many times over is short to write and long to walk.
    if (depth > kMaxNesting || values_left_-- == 0) refuse("\"" + name + "\": nested too deeply or too often");
    if (const auto* dict = std::get_if<const PickleDict*>(&value)) {
      for (const auto& [key, item] : (*dict)->items) collect(item, joined(name, key_text(key, name)), depth + 1);
    } else if (const auto* list = std::get_if<const PickleList*>(&value)) {
      for (std::size_t i = 0; i < (*list)->items.size(); ++i)
        collect((*list)->items[i], joined(name, std::to_string(i)), depth + 1);
    } else if (const auto* call = std::get_if<const PickleCall*>(&value)) {
      take_tensor(**call, name, depth);
    } else if (const auto* global = std::get_if<PickleGlobal>(&value)) {
      refuse("\"" + name + "\" holds the object " + *global->name + ", which is not read here");
    }
  }

  std::map<std::string, TensorPlace> take() { return std::move(places_); }

 private:
  static std::string joined(const std::string& outer, const std::string& inner) {
    return outer.empty() ? inner : outer + "/" + inner;
  }
  static std::string key_text(const PickleValue& key, const std::string& name) {
    if (const auto* text = std::get_if<const std::string*>(&key)) return **text;
    if (const auto* number = std::get_if<int64_t>(&key)) return std::to_string(*number);
    refuse("\"" + name + "\" has a key that is " + kind_of(key));
  }

  void take_tensor(const PickleCall& call, const std::string& name, int depth) {
    if (call.name == "torch._utils._rebuild_parameter") return collect(argument(call, 0), name, depth + 1);
    if (call.name != "torch._utils._rebuild_tensor_v2")
      refuse("\"" + name + "\" holds " +
             (call.name.empty() ? "a storage without a tensor" : "an object made by " + call.name) +
             ", which is not read here");
    try {
      if (!places_.emplace(name, tensor_place(call, prefix_)).second) refuse("stands twice in the file");
    } catch (const std::runtime_error& error) {
      throw std::runtime_error("tensor \"" + name + "\": " + error.what());
    }
  }

  const std::string& prefix_;
  std::size_t values_left_;
  std::map<std::string, TensorPlace> places_;
};

// ---- the archive ----------------------------------------------------------------------------------------------------

class PthFile {
 public:
  explicit PthFile(const std::filesystem::path& path) : path_(path), file_(real_disk().open(path, OpenMode::kRead)) {
    refuse_other_formats();
    entries_ = read_zip_directory(*file_, path_.string());
  }

  StateDict read(std::optional<at::ScalarType> dtype) {
    const std::string prefix = prefix_of_entries();
    if (entries_.contains(prefix + "byteorder") && text_of(prefix + "byteorder") != "little")
      refuse("was written on a big-endian machine, which is not read here");
    const std::string pickle = text_of(prefix + "data.pkl");
    const PickleDocument document = parse_pickle(pickle);
    if (!std::holds_alternative<const PickleDict*>(document.root))
      refuse("expected a dictionary of tensors, found " + kind_of(document.root));
    Collector collector(prefix, pickle.size());
    collector.collect(document.root, "", 0);
    const std::map<std::string, TensorPlace> places = collector.take();
    check(places);
    StateDict tensors;
    for (const auto& [name, place] : places) {
      try {
        tensors[name] = read_tensor(place, dtype);
      } catch (const std::runtime_error& error) {
        throw std::runtime_error("tensor \"" + name + "\": " + error.what());
      }
    }
    return tensors;
  }

 private:
  void refuse_other_formats() {
    std::array<std::byte, 2> first{};
    if (file_->read_at(0, first) == 2 && first[0] == std::byte{0x80})
      throw std::runtime_error(path_.string() +
                               ": is in torch's old format, from before version 1.6; load and save it again with a "
                               "newer torch");
  }

  std::string prefix_of_entries() const {
    std::string prefix;
    for (const auto& [name, entry] : entries_) {
      if (name.ends_with("/constants.pkl")) refuse("is a TorchScript module; expected what torch.save wrote");
      if (name.ends_with("/data.pkl") && name.find('/') == name.rfind('/')) {
        if (!prefix.empty()) refuse("has two files data.pkl");
        prefix = name.substr(0, name.size() - std::string_view("data.pkl").size());
      }
    }
    if (prefix.empty()) refuse("is a zip archive, but not one of torch.save: NAME/data.pkl is missing");
    return prefix;
  }

  static void expect_stored(const std::string& name, const ZipEntry& entry) {
    if (!entry.stored) refuse("\"" + name + "\" is compressed or encrypted; torch.save stores");
  }

  std::string text_of(const std::string& name) {
    const ZipEntry& entry = entries_.at(name);
    expect_stored(name, entry);
    if (entry.bytes > kMaxPickleBytes) refuse("\"" + name + "\" is larger than 16 MiB");
    std::string text(entry.bytes, '\0');
    read_bytes(entry.offset, std::as_writable_bytes(std::span(text.data(), text.size())));
    if (crc32(std::as_bytes(std::span(text.data(), text.size()))) != entry.crc) refuse_checksum(name);
    return text;
  }

  [[noreturn]] static void refuse_checksum(const std::string& name) {
    refuse("the checksum of \"" + name + "\" does not fit: the file is damaged (or torch's CRC-32 was switched off)");
  }

  void read_bytes(uint64_t offset, std::span<std::byte> out) const {
    if (file_->read_at(offset, out) != out.size()) refuse("cut short while it was read");
  }

  // Against the archive, before anything is allocated. Several tensors may share a storage, but a small file must not
  // become a large model.
  void check(const std::map<std::string, TensorPlace>& places) const {
    uint64_t total = 0;
    for (const auto& [name, place] : places) {
      if (place.numel == 0) continue;
      const auto entry = entries_.find(place.entry);
      if (entry == entries_.end()) refuse("tensor \"" + name + "\": \"" + place.entry + "\" is missing");
      expect_stored(place.entry, entry->second);
      const uint64_t item = c10::elementSize(place.type);
      const auto elements = static_cast<int64_t>(entry->second.bytes / item);
      if (place.offset + place.extent > elements)
        refuse("tensor \"" + name + "\": \"" + place.entry + "\" has " + std::to_string(elements) +
               " elements, fewer than the tensor needs");
      if (place.numel > elements) refuse("tensor \"" + name + "\" repeats elements of its storage");
      total += static_cast<uint64_t>(place.numel) * item;
    }
    if (total / 16 > file_->size())
      refuse("its tensors would take " + std::to_string(total) + " bytes, more than 16 times the file");
  }

  // The entry, whose checksum is looked at once.
  const ZipEntry& verified(const std::string& name) {
    const ZipEntry& entry = entries_.at(name);
    if (!verified_.insert(name).second) return entry;
    std::vector<std::byte> piece(std::min<uint64_t>(entry.bytes, 1u << 20));
    uint32_t crc = 0;
    for (uint64_t at = 0; at < entry.bytes; at += piece.size()) {
      const std::span bytes(piece.data(), std::min<uint64_t>(piece.size(), entry.bytes - at));
      read_bytes(entry.offset + at, bytes);
      crc = crc32(bytes, crc);
    }
    if (crc != entry.crc) refuse_checksum(name);
    return entry;
  }

  at::Tensor read_tensor(const TensorPlace& place, std::optional<at::ScalarType> dtype) {
    const at::ScalarType type = dtype && c10::isFloatingType(place.type) ? *dtype : place.type;
    if (place.numel == 0) return at::empty(place.sizes, at::dtype(type));
    const ZipEntry& entry = verified(place.entry);
    const uint64_t item = c10::elementSize(place.type);
    const uint64_t begin = entry.offset + static_cast<uint64_t>(place.offset) * item;
    const at::Tensor range = at::empty({place.extent}, at::dtype(type));
    const at::Tensor buffer = type == place.type ? range : at::empty({std::min(kPiece, place.extent)}, place.type);
    const int64_t piece = buffer.numel();
    for (int64_t at = 0; at < place.extent; at += piece) {
      const int64_t n = std::min(piece, place.extent - at);
      read_bytes(begin + static_cast<uint64_t>(at) * item,
                 {static_cast<std::byte*>(buffer.data_ptr()), static_cast<std::size_t>(n) * item});
      if (type != place.type) range.narrow(0, at, n).copy_(buffer.narrow(0, 0, n));
    }
    const at::Tensor view = range.as_strided(place.sizes, place.strides);
    // One of several elements' gaps would keep what it does not use.
    return view.is_contiguous() && place.extent == place.numel ? view : view.clone(at::MemoryFormat::Contiguous);
  }

  const std::filesystem::path path_;
  const std::unique_ptr<File> file_;
  ZipDirectory entries_;
  std::set<std::string> verified_;
};

}  // namespace

StateDict read_pth(const std::filesystem::path& path, std::optional<at::ScalarType> dtype) {
  PthFile file(path);
  try {
    return file.read(dtype);
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(path.string() + ": " + error.what());
  }
}

}  // namespace troupe
