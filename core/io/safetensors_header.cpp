#include "core/io/safetensors_header.hpp"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>

#include "core/watched_text.hpp"

namespace troupe {
namespace {

// Widest token (a name, a metadata value) read from a header: bounds what a hostile one makes the lexer allocate.
constexpr std::ptrdiff_t kMaxTokenBytes = 1 << 20;
constexpr std::size_t kMaxMetadataBytes = 16u << 20;
constexpr std::size_t kMaxDimensions = 16;

struct DTypeBits {
  std::string_view name;
  uint64_t bits;
};
constexpr DTypeBits kDTypes[] = {{"BOOL", 8},    {"U8", 8},   {"I8", 8},      {"F8_E5M2", 8}, {"F8_E4M3", 8},
                                 {"F8_E8M0", 8}, {"F4", 4},   {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"I16", 16},
                                 {"U16", 16},    {"F16", 16}, {"BF16", 16},   {"I32", 32},    {"U32", 32},
                                 {"F32", 32},    {"C64", 64}, {"F64", 64},    {"I64", 64},    {"U64", 64}};

std::optional<uint64_t> dtype_bits(std::string_view name) {
  for (const DTypeBits& d : kDTypes)
    if (d.name == name) return d.bits;
  return std::nullopt;
}

// The header's grammar: {NAME: {"dtype": S, "shape": [N...], "data_offsets": [N, N]}, "__metadata__": {S: S}}.
// A state a level; whatever does not fit throws. Keeps no tree.
class HeaderHandler {
 public:
  HeaderHandler(SafetensorsHeader& header, const char* begin) : header_(header), seen_(begin), event_(begin) {}

  // Stops the lexer inside a token that grows past the limit.
  void reached(const char* at) {
    seen_ = at;
    if (at - event_ > kMaxTokenBytes) throw std::runtime_error("a token of the header is longer than 1 MiB");
  }

  bool null() { return wrong("null"); }
  bool boolean(bool) { return wrong("true or false"); }
  bool number_integer(int64_t) { return wrong("a negative number"); }
  bool number_float(double, const std::string&) { return wrong("a number that is no unsigned 64-bit integer"); }
  bool binary(nlohmann::json::binary_t&) { return wrong("binary data"); }

  bool number_unsigned(uint64_t value) {
    if (state_ != State::kShape && state_ != State::kOffsets) return wrong("a number");
    if (numbers_.size() >= kMaxDimensions) fail("more than 16 numbers in " + key_);
    numbers_.push_back(value);
    return next();
  }

  bool string(std::string& value) {
    if (state_ == State::kMetadataValue) {
      metadata_bytes_ += key_.size() + value.size();
      if (metadata_bytes_ > kMaxMetadataBytes) fail("__metadata__ is larger than 16 MiB");
      if (!header_.metadata.emplace(key_, value).second) fail("duplicate key \"" + key_ + "\" in __metadata__");
      state_ = State::kMetadata;
    } else if (state_ == State::kEntryValue && key_ == "dtype") {
      entry_.dtype = value;
      state_ = State::kEntry;
    } else {
      return wrong("a string");
    }
    return next();
  }

  bool start_object(std::size_t) {
    if (state_ == State::kStart) {
      state_ = State::kTop;
    } else if (state_ == State::kTopValue) {
      state_ = name_ == "__metadata__" ? State::kMetadata : State::kEntry;
      entry_ = {};
      has_shape_ = has_offsets_ = false;
    } else {
      return wrong("an object");
    }
    return next();
  }

  bool key(std::string& key) {
    if (state_ == State::kTop) {
      name_ = key;
      if (name_.find('\0') != name_.npos) {
        name_.clear();  // would cut the message short
        fail("a tensor's name holds a NUL character");
      }
      if (name_ == "__metadata__" ? had_metadata_ : header_.tensors.contains(name_)) fail("duplicate name");
      had_metadata_ = had_metadata_ || name_ == "__metadata__";
      state_ = State::kTopValue;
    } else {
      key_ = key;
      state_ = state_ == State::kMetadata ? State::kMetadataValue : State::kEntryValue;
      if (state_ == State::kEntryValue) check_entry_key();
    }
    return next();
  }

  bool start_array(std::size_t) {
    if (state_ != State::kEntryValue || key_ == "dtype") return wrong("an array");
    state_ = key_ == "shape" ? State::kShape : State::kOffsets;
    numbers_.clear();
    return next();
  }

  bool end_array() {
    if (state_ == State::kShape) {
      for (const uint64_t n : numbers_) {
        if (n > static_cast<uint64_t>(INT64_MAX)) fail("a dimension of " + std::to_string(n));
        entry_.shape.push_back(static_cast<int64_t>(n));
      }
      has_shape_ = true;
    } else {
      if (numbers_.size() != 2) fail("data_offsets has " + std::to_string(numbers_.size()) + " numbers, expected 2");
      entry_.begin = numbers_[0];
      entry_.end = numbers_[1];
      has_offsets_ = true;
    }
    state_ = State::kEntry;
    return next();
  }

  bool end_object() {
    if (state_ == State::kEntry) {
      if (entry_.dtype.empty() || !has_shape_ || !has_offsets_) fail("dtype, shape or data_offsets is missing");
      if (header_.tensors.size() >= kMaxSafetensorsTensors) fail("more than 131072 tensors");
      header_.tensors.emplace(name_, std::move(entry_));
    }
    state_ = State::kTop;
    return next();
  }

  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& error) {
    std::string_view what = error.what();
    if (const auto bracket = what.find("] "); bracket != what.npos) what.remove_prefix(bracket + 2);
    fail("is no JSON: " + std::string(what));
  }

 private:
  enum class State { kStart, kTop, kTopValue, kEntry, kEntryValue, kShape, kOffsets, kMetadata, kMetadataValue };

  void check_entry_key() {
    const bool known = key_ == "dtype" || key_ == "shape" || key_ == "data_offsets";
    if (!known) fail("unknown key \"" + key_ + "\"");
    if ((key_ == "dtype" && !entry_.dtype.empty()) || (key_ == "shape" && has_shape_) ||
        (key_ == "data_offsets" && has_offsets_))
      fail("duplicate key \"" + key_ + "\"");
  }
  bool next() {
    event_ = seen_;
    return true;
  }
  bool wrong(const char* found) { fail(std::string("found ") + found + " where the format has something else"); }
  [[noreturn]] void fail(const std::string& reason) {
    throw std::runtime_error((name_.empty() ? "" : "\"" + name_ + "\": ") + reason);
  }

  SafetensorsHeader& header_;
  const char* seen_;   // how far the lexer has come
  const char* event_;  // where it was at the last event
  State state_ = State::kStart;
  std::string name_, key_;
  SafetensorsEntry entry_;
  bool has_shape_ = false, has_offsets_ = false, had_metadata_ = false;
  std::vector<uint64_t> numbers_;
  std::size_t metadata_bytes_ = 0;
};

// Bytes of a tensor; throws where the product does not fit.
uint64_t tensor_bytes(const std::string& name, const SafetensorsEntry& entry) {
  const auto bits = dtype_bits(entry.dtype);
  if (!bits) throw std::runtime_error("\"" + name + "\": unknown dtype \"" + entry.dtype + "\"");
  uint64_t total = *bits;
  for (const int64_t n : entry.shape)
    if (__builtin_mul_overflow(total, static_cast<uint64_t>(n), &total))
      throw std::runtime_error("\"" + name + "\": the product of its shape does not fit in 64 bits");
  if (total % 8 != 0) throw std::runtime_error("\"" + name + "\": its bits do not fill whole bytes");
  return total / 8;
}

// Every byte of the data belongs to exactly one tensor: so no file can be read as two different things.
void check_places(const SafetensorsHeader& header, uint64_t data_bytes) {
  std::vector<std::pair<const std::string*, const SafetensorsEntry*>> order;
  for (const auto& [name, entry] : header.tensors) order.emplace_back(&name, &entry);
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return std::pair(a.second->begin, a.second->end) < std::pair(b.second->begin, b.second->end);
  });
  uint64_t at = 0;
  for (const auto& [name, entry] : order) {
    const std::string place = "[" + std::to_string(entry->begin) + ", " + std::to_string(entry->end) + "]";
    if (entry->begin != at || entry->end < entry->begin)
      throw std::runtime_error("\"" + *name + "\": data_offsets " + place +
                               " leave a hole or overlap; expected to begin at " + std::to_string(at));
    const uint64_t bytes = tensor_bytes(*name, *entry);
    if (entry->end - entry->begin != bytes)
      throw std::runtime_error("\"" + *name + "\": data_offsets " + place + " hold " +
                               std::to_string(entry->end - entry->begin) + " bytes, its shape and dtype need " +
                               std::to_string(bytes));
    at = entry->end;
  }
  if (at != data_bytes)
    throw std::runtime_error("its tensors end at byte " + std::to_string(at) + " of the data, the file has " +
                             std::to_string(data_bytes));
}

}  // namespace

uint64_t safetensors_header_bytes(std::span<const std::byte> first, uint64_t file_bytes, const std::string& origin) {
  if (file_bytes < 8 || first.size() < 8)
    throw std::runtime_error(origin + ": no safetensors file: " + std::to_string(file_bytes) + " bytes");
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | std::to_integer<uint64_t>(first[static_cast<std::size_t>(i)]);
  if (length > kMaxSafetensorsHeaderBytes)
    throw std::runtime_error(origin + ": no safetensors file: a header of " + std::to_string(length) +
                             " bytes; the limit is 100000000");
  if (length > file_bytes - 8)
    throw std::runtime_error(origin + ": cut short: a header of " + std::to_string(length) + " bytes in a file of " +
                             std::to_string(file_bytes));
  return length;
}

SafetensorsHeader parse_safetensors_header(std::string_view json, uint64_t file_bytes, const std::string& origin) {
  try {
    if (json.empty() || json.front() != '{') throw std::runtime_error("the header does not begin with '{'");
    SafetensorsHeader header;
    header.data_begin = 8 + json.size();
    HeaderHandler handler(header, json.data());
    const char* end = json.data() + json.size();
    nlohmann::json::sax_parse(WatchedChar{json.data(), &handler}, WatchedChar{end, &handler}, &handler);
    check_places(header, file_bytes - header.data_begin);
    return header;
  } catch (const std::exception& e) {
    throw std::runtime_error(origin + ": safetensors header: " + e.what());
  }
}

std::string format_safetensors_header(const std::vector<std::pair<std::string, SafetensorsEntry>>& tensors,
                                      const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json json;
  if (!metadata.empty()) json["__metadata__"] = metadata;
  for (const auto& [name, entry] : tensors)
    json[name] = {{"dtype", entry.dtype}, {"shape", entry.shape}, {"data_offsets", {entry.begin, entry.end}}};
  std::string text = tensors.empty() && metadata.empty() ? "{}" : json.dump();
  text.append((64 - (8 + text.size()) % 64) % 64, ' ');
  std::string out(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) out[i] = static_cast<char>(uint64_t{text.size()} >> (8 * i));
  return out + text;
}

}  // namespace troupe
