// What torch.save writes of a flat dictionary, as torch 2 reads it with weights_only=True.
#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "core/io/crc32.hpp"
#include "core/io/pth.hpp"
#include "core/io/zip_archive.hpp"

namespace troupe {
namespace {

constexpr int64_t kPiece = 1 << 20;  // elements converted at once

std::string_view storage_of(at::ScalarType type, const std::string& name) {
  switch (type) {
    case at::kFloat:
      return "FloatStorage";
    case at::kHalf:
      return "HalfStorage";
    case at::kBFloat16:
      return "BFloat16Storage";
    case at::kDouble:
      return "DoubleStorage";
    case at::kLong:
      return "LongStorage";
    case at::kInt:
      return "IntStorage";
    case at::kShort:
      return "ShortStorage";
    case at::kChar:
      return "CharStorage";
    case at::kByte:
      return "ByteStorage";
    case at::kBool:
      return "BoolStorage";
    default:
      throw std::invalid_argument("tensor \"" + name + "\" has dtype " + c10::toString(type) +
                                  ", which is not written to .pth");
  }
}

class PickleWriter {
 public:
  PickleWriter& raw(std::string_view bytes) {
    bytes_ += bytes;
    return *this;
  }
  PickleWriter& global(std::string_view module, std::string_view name) {
    return raw("c").raw(module).raw("\n").raw(name).raw("\n");
  }
  PickleWriter& text(std::string_view text) {
    raw("X");
    little_endian(text.size(), 4);
    return raw(text);
  }
  PickleWriter& integer(int64_t value) {
    if (value >= 0 && value <= INT32_MAX) {
      raw("J");
      little_endian(static_cast<uint64_t>(value), 4);
    } else {
      raw("\x8a\x08");
      little_endian(static_cast<uint64_t>(value), 8);
    }
    return *this;
  }
  PickleWriter& tuple(at::IntArrayRef values) {
    raw("(");
    for (const int64_t value : values) integer(value);
    return raw("t");
  }
  const std::string& bytes() const { return bytes_; }

 private:
  void little_endian(uint64_t value, std::size_t size) {
    for (std::size_t i = 0; i < size; ++i) bytes_ += static_cast<char>(value >> (8 * i));
  }
  std::string bytes_;
};

struct Storage {
  at::Tensor elements;  // flat
  at::ScalarType type;  // as stored
};

// The storages to write and the pickle that names them.
struct Plan {
  std::vector<Storage> storages;
  std::string pickle;
};

Plan plan_of(const StateDict& tensors, std::optional<at::ScalarType> dtype) {
  Plan plan;
  std::map<std::tuple<const void*, at::ScalarType, int64_t>, std::size_t> written;
  PickleWriter out;
  out.raw("\x80\x02}(");
  for (const auto& [name, tensor] : tensors) {
    const at::ScalarType type = dtype && tensor.is_floating_point() ? *dtype : tensor.scalar_type();
    const at::Tensor elements = tensor.detach().contiguous().view({-1});
    std::size_t key = plan.storages.size();
    if (tensor.is_contiguous() && tensor.numel() > 0)
      key = written.try_emplace({tensor.const_data_ptr(), tensor.scalar_type(), tensor.numel()}, key).first->second;
    if (key == plan.storages.size()) plan.storages.push_back({elements, type});
    out.text(name).global("torch._utils", "_rebuild_tensor_v2").raw("(");
    out.raw("(").text("storage").global("torch", storage_of(type, name)).text(std::to_string(key)).text("cpu");
    out.integer(tensor.numel()).raw("tQ");
    out.integer(0).tuple(tensor.sizes()).tuple(at::empty(tensor.sizes(), at::kMeta).strides());
    out.raw("\x89").global("collections", "OrderedDict").raw(")RtR");  // requires no gradient, has no hooks
  }
  plan.pickle = out.raw("u.").bytes();
  return plan;
}

// Calls use(bytes) for the storage's bytes, piece by piece.
template <class Use>
void for_each_piece(const Storage& storage, Use use) {
  for (int64_t at = 0; at < storage.elements.numel(); at += kPiece) {
    const int64_t n = std::min(kPiece, storage.elements.numel() - at);
    const at::Tensor piece = storage.elements.narrow(0, at, n).to(storage.type).cpu();
    use(std::span(static_cast<const std::byte*>(piece.const_data_ptr()), piece.nbytes()));
  }
}

}  // namespace

void save_pth(Disk& disk, const std::filesystem::path& path, const StateDict& tensors,
              std::optional<at::ScalarType> dtype) {
  const Plan plan = plan_of(tensors, dtype);
  const std::filesystem::path aside = path.string() + ".tmp";
  {
    const auto file = disk.open(aside, OpenMode::kCreate);
    ZipWriter zip(*file);
    zip.add("archive/data.pkl", plan.pickle);
    zip.add("archive/byteorder", "little");
    for (std::size_t i = 0; i < plan.storages.size(); ++i) {
      const Storage& storage = plan.storages[i];
      uint32_t crc = 0;
      for_each_piece(storage, [&](std::span<const std::byte> bytes) { crc = crc32(bytes, crc); });
      const auto bytes = static_cast<uint64_t>(storage.elements.numel()) * c10::elementSize(storage.type);
      zip.begin("archive/data/" + std::to_string(i), bytes, crc);
      for_each_piece(storage, [&](std::span<const std::byte> piece) { file->append(piece); });
    }
    zip.add("archive/version", "3\n");
    zip.finish();
    file->sync();
  }
  disk.rename(aside, path);
  disk.sync_dir(path.has_parent_path() ? path.parent_path() : ".");
}

}  // namespace troupe
