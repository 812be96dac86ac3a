// A safetensors header, checked. No tensors here: names, types, shapes, places.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace troupe {

inline constexpr uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;
inline constexpr std::size_t kMaxSafetensorsTensors = 1u << 17;

struct SafetensorsEntry {
  std::string dtype;            // "F32", "BF16", ... one the format knows
  std::vector<int64_t> shape;   // each >= 0
  uint64_t begin = 0, end = 0;  // bytes, from data_begin
};

struct SafetensorsHeader {
  std::map<std::string, SafetensorsEntry, std::less<>> tensors;
  std::map<std::string, std::string> metadata;
  uint64_t data_begin = 0;  // bytes from the file's start
};

// The header's length as the file's first 8 bytes give it. Throws when it cannot be right for a file of file_bytes.
uint64_t safetensors_header_bytes(std::span<const std::byte> first, uint64_t file_bytes, const std::string& origin);

// `json` is the header's text. Throws std::runtime_error naming `origin` and the tensor at fault.
SafetensorsHeader parse_safetensors_header(std::string_view json, uint64_t file_bytes, const std::string& origin);

// The header's length field and text for tensors in this order, each (name, entry); padded with spaces so that data
// begins at a multiple of 64.
std::string format_safetensors_header(const std::vector<std::pair<std::string, SafetensorsEntry>>& tensors,
                                      const std::map<std::string, std::string>& metadata);

}  // namespace troupe
