#include "core/io/gguf.hpp"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <stdexcept>

namespace troupe {
namespace {

constexpr uint64_t kMaxKeyBytes = 65535;
constexpr uint64_t kMaxStringBytes = 64u << 20;
constexpr uint64_t kMaxArrayElements = 1u << 24;  // over all arrays of a file
constexpr uint64_t kMaxKeys = 1u << 16;
constexpr uint64_t kMaxTensors = 1u << 17;
constexpr uint32_t kMaxDimensions = 4;

enum class ValueType : uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64 };

// Reads a file front to back; nothing is allocated for bytes that the file does not have.
class ByteReader {
 public:
  explicit ByteReader(const File& file) : file_(file), size_(file.size()) {}

  uint64_t position() const { return position_; }
  uint64_t remaining() const { return size_ - position_; }

  void read(void* out, uint64_t n) {
    if (n > remaining()) fail_short();
    auto* to = static_cast<std::byte*>(out);
    while (n > 0) {
      if (position_ < buffer_begin_ || position_ >= buffer_begin_ + buffer_.size()) refill();
      const uint64_t at = position_ - buffer_begin_;
      const uint64_t take = std::min<uint64_t>(n, buffer_.size() - at);
      std::memcpy(to, buffer_.data() + at, take);
      to += take, n -= take, position_ += take;
    }
  }
  template <class T>
  T number() {
    T value;
    read(&value, sizeof value);
    return value;
  }
  std::string string(uint64_t limit) {
    const auto length = number<uint64_t>();
    if (length > limit)
      throw std::runtime_error("a string of " + std::to_string(length) + " bytes at byte " + std::to_string(position_));
    if (length > remaining()) fail_short();
    std::string text(length, '\0');
    read(text.data(), length);
    return text;
  }

 private:
  [[noreturn]] void fail_short() const {
    throw std::runtime_error("the file ends inside its header, at byte " + std::to_string(size_));
  }
  void refill() {
    buffer_.resize(std::min<uint64_t>(1 << 20, remaining()));
    buffer_begin_ = position_;
    if (file_.read_at(position_, buffer_) != buffer_.size()) throw std::runtime_error("cut short while it was read");
  }

  const File& file_;
  const uint64_t size_;
  uint64_t position_ = 0;
  uint64_t buffer_begin_ = 0;
  std::vector<std::byte> buffer_;
};

// What the writer meant by a float32: the shortest decimal that gives it.
double decimal(float value) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, value).ptr;
  double out = 0;
  std::from_chars(text, end, out);
  return out;
}

bool read_bool(ByteReader& in) {
  const auto value = in.number<uint8_t>();
  if (value > 1) throw std::runtime_error("a boolean of value " + std::to_string(value));
  return value == 1;
}

GgufValue read_scalar(ByteReader& in, ValueType type) {
  switch (type) {
    case ValueType::kU8:
      return uint64_t{in.number<uint8_t>()};
    case ValueType::kI8:
      return int64_t{in.number<int8_t>()};
    case ValueType::kU16:
      return uint64_t{in.number<uint16_t>()};
    case ValueType::kI16:
      return int64_t{in.number<int16_t>()};
    case ValueType::kU32:
      return uint64_t{in.number<uint32_t>()};
    case ValueType::kI32:
      return int64_t{in.number<int32_t>()};
    case ValueType::kU64:
      return in.number<uint64_t>();
    case ValueType::kI64:
      return in.number<int64_t>();
    case ValueType::kF32:
      return decimal(in.number<float>());
    case ValueType::kF64:
      return in.number<double>();
    case ValueType::kBool:
      return read_bool(in);
    case ValueType::kString:
      return in.string(kMaxStringBytes);
    case ValueType::kArray:
      break;
  }
  throw std::runtime_error("unknown value type " + std::to_string(static_cast<uint32_t>(type)));
}

uint64_t least_bytes(ValueType type) {
  switch (type) {
    case ValueType::kU8:
    case ValueType::kI8:
    case ValueType::kBool:
      return 1;
    case ValueType::kU16:
    case ValueType::kI16:
      return 2;
    case ValueType::kU32:
    case ValueType::kI32:
    case ValueType::kF32:
      return 4;
    default:
      return 8;
  }
}

int64_t as_integer(const GgufValue& value) {
  if (const auto* i = std::get_if<int64_t>(&value)) return *i;
  const auto* u = std::get_if<uint64_t>(&value);
  if (u == nullptr) throw std::runtime_error("not an integer");
  if (*u > static_cast<uint64_t>(INT64_MAX)) throw std::runtime_error(std::to_string(*u) + " is out of range");
  return static_cast<int64_t>(*u);
}

template <class T, class Convert>
GgufValue read_elements(ByteReader& in, ValueType type, uint64_t count, Convert convert) {
  std::vector<T> out;
  out.reserve(count);
  for (uint64_t i = 0; i < count; ++i) out.push_back(convert(read_scalar(in, type)));
  return out;
}

GgufValue read_array(ByteReader& in, uint64_t& elements_left) {
  const auto type = static_cast<ValueType>(in.number<uint32_t>());
  const auto count = in.number<uint64_t>();
  if (type == ValueType::kArray || type > ValueType::kF64)
    throw std::runtime_error("an array of value type " + std::to_string(static_cast<uint32_t>(type)));
  if (count > elements_left || count > in.remaining() / least_bytes(type))
    throw std::runtime_error("an array of " + std::to_string(count) +
                             " elements, more than the file or the limit holds");
  elements_left -= count;
  if (type == ValueType::kString)
    return read_elements<std::string>(in, type, count, [](GgufValue v) { return std::get<std::string>(std::move(v)); });
  if (type == ValueType::kBool)
    return read_elements<bool>(in, type, count, [](const GgufValue& v) { return std::get<bool>(v); });
  if (type == ValueType::kF32 || type == ValueType::kF64)
    return read_elements<double>(in, type, count, [](const GgufValue& v) { return std::get<double>(v); });
  return read_elements<int64_t>(in, type, count, as_integer);
}

GgufTensor read_tensor_info(ByteReader& in) {
  GgufTensor tensor{};
  const auto dimensions = in.number<uint32_t>();
  if (dimensions < 1 || dimensions > kMaxDimensions)
    throw std::runtime_error(std::to_string(dimensions) + " dimensions, expected 1 to 4");
  uint64_t elements = 1;
  for (uint32_t i = 0; i < dimensions; ++i) {
    const auto n = in.number<uint64_t>();
    if (n == 0 || __builtin_mul_overflow(elements, n, &elements) || elements > static_cast<uint64_t>(INT64_MAX))
      throw std::runtime_error("a dimension of " + std::to_string(n) + " in a shape of " + std::to_string(dimensions));
    tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(n));
  }
  const auto type = in.number<uint32_t>();
  const auto traits = gguf_type_traits(type);
  if (!traits) throw std::runtime_error("ggml type " + std::to_string(type) + ", which is not read here");
  tensor.type = static_cast<GgufType>(type);
  if (static_cast<uint64_t>(tensor.shape.back()) % traits->block_elements != 0)
    throw std::runtime_error("rows of " + std::to_string(tensor.shape.back()) + " elements are no multiple of " +
                             std::string(traits->name) + "'s block");
  if (__builtin_mul_overflow(elements / traits->block_elements, uint64_t{traits->block_bytes}, &tensor.bytes))
    throw std::runtime_error("more bytes than 64 bits count");
  tensor.offset = in.number<uint64_t>();
  return tensor;
}

// Puts the offsets right (they count from the data's begin) and checks that every tensor lies in the file, alone.
void place(std::map<std::string, GgufTensor, std::less<>>& tensors, uint64_t header_end, uint64_t file_bytes,
           uint64_t alignment) {
  const uint64_t data_begin = (header_end + alignment - 1) / alignment * alignment;
  std::vector<std::pair<const std::string*, GgufTensor*>> order;
  for (auto& [name, tensor] : tensors) {
    const uint64_t room = file_bytes - std::min(file_bytes, data_begin);
    if (tensor.offset % alignment != 0 || tensor.offset > room || tensor.bytes > room - tensor.offset)
      throw std::runtime_error("tensor \"" + name + "\": " + std::to_string(tensor.bytes) + " bytes at offset " +
                               std::to_string(tensor.offset) + " are misaligned or lie outside the file");
    tensor.offset += data_begin;
    order.emplace_back(&name, &tensor);
  }
  std::sort(order.begin(), order.end(),
            [](const auto& a, const auto& b) { return a.second->offset < b.second->offset; });
  for (std::size_t i = 1; i < order.size(); ++i)
    if (order[i - 1].second->offset + order[i - 1].second->bytes > order[i].second->offset)
      throw std::runtime_error("tensors \"" + *order[i - 1].first + "\" and \"" + *order[i].first + "\" overlap");
}

void check_counts(ByteReader& in, uint64_t num_tensors, uint64_t num_keys) {
  constexpr uint64_t kLeastTensor = 8 + 4 + 8 + 4 + 8, kLeastKey = 8 + 4 + 1;
  if (num_tensors > kMaxTensors || num_tensors > in.remaining() / kLeastTensor)
    throw std::runtime_error(std::to_string(num_tensors) + " tensors, more than the file or the limit holds");
  if (num_keys > kMaxKeys || num_keys > in.remaining() / kLeastKey)
    throw std::runtime_error(std::to_string(num_keys) + " metadata keys, more than the file or the limit holds");
}

void check_start(ByteReader& in) {
  char magic[4];
  in.read(magic, 4);
  if (std::memcmp(magic, "GGUF", 4) != 0) throw std::runtime_error("does not begin with GGUF");
  const auto version = in.number<uint32_t>();
  if (version == 0x02000000 || version == 0x03000000)
    throw std::runtime_error("is written in big-endian order, which is not read here");
  if (version != 2 && version != 3)
    throw std::runtime_error("GGUF version " + std::to_string(version) + "; versions 2 and 3 are read");
}

}  // namespace

GgufFile::GgufFile(const std::filesystem::path& path) : path_(path), file_(real_disk().open(path, OpenMode::kRead)) {
  std::string at;  // what is being read, for the message
  try {
    ByteReader in(*file_);
    check_start(in);
    const auto num_tensors = in.number<uint64_t>();
    const auto num_keys = in.number<uint64_t>();
    check_counts(in, num_tensors, num_keys);
    uint64_t elements_left = kMaxArrayElements;
    for (uint64_t i = 0; i < num_keys; ++i) {
      at = "metadata key " + std::to_string(i);
      const std::string key = in.string(kMaxKeyBytes);
      at = "metadata \"" + key + "\"";
      const auto type = static_cast<ValueType>(in.number<uint32_t>());
      GgufValue value = type == ValueType::kArray ? read_array(in, elements_left) : read_scalar(in, type);
      if (!metadata_.emplace(key, std::move(value)).second) throw std::runtime_error("stands twice");
    }
    for (uint64_t i = 0; i < num_tensors; ++i) {
      at = "tensor " + std::to_string(i);
      const std::string name = in.string(kMaxKeyBytes);
      at = "tensor \"" + name + "\"";
      if (!tensors_.emplace(name, read_tensor_info(in)).second) throw std::runtime_error("stands twice");
    }
    at = "metadata \"general.alignment\"";
    const auto alignment = has("general.alignment") ? as_integer(metadata_.at("general.alignment")) : 32;
    if (alignment < 1 || alignment > 1 << 20 || !std::has_single_bit(static_cast<uint64_t>(alignment)))
      throw std::runtime_error(std::to_string(alignment) + "; expected a power of two up to 1048576");
    at.clear();
    place(tensors_, in.position(), file_->size(), static_cast<uint64_t>(alignment));
  } catch (const DiskError&) {
    throw;
  } catch (const std::exception& e) {
    throw std::runtime_error(path_.string() + ": " + (at.empty() ? "" : at + ": ") + e.what());
  }
}

// ---- metadata -------------------------------------------------------------------------------------------------------

namespace {

template <class T>
const T* typed(const GgufFile& file, std::string_view key, const char* expected) {
  const auto it = file.metadata().find(key);
  if (it == file.metadata().end()) return nullptr;
  if (const T* value = std::get_if<T>(&it->second)) return value;
  throw std::runtime_error(file.path().string() + ": metadata \"" + std::string(key) + "\" is not " + expected);
}

template <class T>
T required(const GgufFile& file, std::string_view key, std::optional<T> value) {
  if (!value) throw std::runtime_error(file.path().string() + ": metadata \"" + std::string(key) + "\" is missing");
  return *value;
}

}  // namespace

std::optional<std::string> GgufFile::find_string(std::string_view key) const {
  const auto* value = typed<std::string>(*this, key, "a string");
  return value ? std::optional(*value) : std::nullopt;
}

std::optional<int64_t> GgufFile::find_integer(std::string_view key) const {
  const auto it = metadata_.find(key);
  if (it == metadata_.end()) return std::nullopt;
  try {
    return as_integer(it->second);
  } catch (const std::runtime_error& e) {
    throw std::runtime_error(path_.string() + ": metadata \"" + std::string(key) + "\": " + e.what());
  }
}

std::optional<double> GgufFile::find_number(std::string_view key) const {
  const auto it = metadata_.find(key);
  if (it != metadata_.end() && !std::holds_alternative<double>(it->second))
    return static_cast<double>(*find_integer(key));
  const auto* value = typed<double>(*this, key, "a number");
  return value ? std::optional(*value) : std::nullopt;
}

std::optional<bool> GgufFile::find_bool(std::string_view key) const {
  const auto* value = typed<bool>(*this, key, "a boolean");
  return value ? std::optional(*value) : std::nullopt;
}

std::vector<std::string> GgufFile::find_strings(std::string_view key) const {
  const auto* value = typed<std::vector<std::string>>(*this, key, "an array of strings");
  return value ? *value : std::vector<std::string>();
}

std::vector<int64_t> GgufFile::find_integers(std::string_view key) const {
  const auto* value = typed<std::vector<int64_t>>(*this, key, "an array of integers");
  return value ? *value : std::vector<int64_t>();
}

std::string GgufFile::get_string(std::string_view key) const {
  return required(*this, key, find_string(key));
}
int64_t GgufFile::get_integer(std::string_view key) const {
  return required(*this, key, find_integer(key));
}
double GgufFile::get_number(std::string_view key) const {
  return required(*this, key, find_number(key));
}

void GgufFile::read(const std::string& name, std::span<float> out) const {
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) throw std::runtime_error(path_.string() + " has no tensor \"" + name + "\"");
  const GgufTensor& tensor = it->second;
  const GgufTypeTraits traits = *gguf_type_traits(static_cast<uint32_t>(tensor.type));
  const uint64_t blocks = tensor.bytes / traits.block_bytes;
  if (out.size() != blocks * traits.block_elements)
    throw std::invalid_argument("tensor \"" + name + "\" does not have " + std::to_string(out.size()) + " elements");
  // In pieces that stay in the cache.
  const uint64_t piece_blocks = std::max<uint64_t>(1, (256 << 10) / traits.block_bytes);
  std::vector<std::byte> buffer(std::min(piece_blocks, blocks) * traits.block_bytes);
  for (uint64_t at = 0; at < blocks; at += piece_blocks) {
    const uint64_t n = std::min(piece_blocks, blocks - at);
    const std::span bytes(buffer.data(), n * traits.block_bytes);
    if (file_->read_at(tensor.offset + at * traits.block_bytes, bytes) != bytes.size())
      throw std::runtime_error(path_.string() + ": cut short while tensor \"" + name + "\" was read");
    dequantize(tensor.type, bytes, out.subspan(at * traits.block_elements, n * traits.block_elements));
  }
}

GgufVocabulary gguf_vocabulary(const GgufFile& file) {
  GgufVocabulary v;
  v.source = file.path().string();
  v.model = file.get_string("tokenizer.ggml.model");
  v.pre = file.find_string("tokenizer.ggml.pre").value_or("");
  v.tokens = file.find_strings("tokenizer.ggml.tokens");
  for (const int64_t type : file.find_integers("tokenizer.ggml.token_type")) {
    if (type < 0 || type > INT32_MAX)
      throw std::runtime_error(v.source + ": metadata \"tokenizer.ggml.token_type\" holds " + std::to_string(type));
    v.token_types.push_back(static_cast<int32_t>(type));
  }
  v.merges = file.find_strings("tokenizer.ggml.merges");
  v.bos_token_id = file.find_integer("tokenizer.ggml.bos_token_id");
  v.eos_token_id = file.find_integer("tokenizer.ggml.eos_token_id");
  v.padding_token_id = file.find_integer("tokenizer.ggml.padding_token_id");
  v.unknown_token_id = file.find_integer("tokenizer.ggml.unknown_token_id");
  v.add_bos_token = file.find_bool("tokenizer.ggml.add_bos_token");
  v.chat_template = file.find_string("tokenizer.chat_template").value_or("");
  return v;
}

}  // namespace troupe
