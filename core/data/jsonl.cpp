#include "core/data/jsonl.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>

#include "core/io/disk.hpp"
#include "core/io/mapped_file.hpp"

namespace troupe {
namespace {

constexpr uint64_t kProgressBytes = uint64_t{64} << 20;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t\r\v\f") == line.npos;
}

}  // namespace

struct JsonLines::State {
  struct Place {
    uint64_t begin, bytes;
    int64_t number;
  };

  explicit State(const std::filesystem::path& path) : file(path) {
    bytes = real_disk().open(path, OpenMode::kRead)->size();
    if (bytes == 0) return;
    mapping.emplace(path, bytes);
    data = reinterpret_cast<const char*>(mapping->data());
  }

  void find_lines(const Progress& progress) {
    const std::string_view all(data, bytes);
    uint64_t at = all.starts_with(kByteOrderMark) ? kByteOrderMark.size() : 0;
    uint64_t next_report = kProgressBytes;
    if (mapping) mapping->advise(MADV_SEQUENTIAL);
    for (int64_t number = 1; at < bytes; ++number) {
      const void* newline = std::memchr(data + at, '\n', bytes - at);
      const uint64_t end = newline == nullptr ? bytes : static_cast<uint64_t>(static_cast<const char*>(newline) - data);
      std::string_view line = all.substr(at, end - at);
      if (line.ends_with('\r')) line.remove_suffix(1);
      if (!is_blank(line)) places.push_back({at, line.size(), number});
      at = end + 1;
      if (progress && at >= next_report) {
        progress(std::min(at, bytes), bytes);
        next_report = at + kProgressBytes;
      }
    }
    if (places.empty()) throw std::runtime_error(file.string() + ": holds no line");
    mapping->advise(MADV_NORMAL);
  }

  std::filesystem::path file;
  std::optional<MappedFile> mapping;  // none of an empty file
  const char* data = nullptr;
  uint64_t bytes = 0;
  std::vector<Place> places;
};

JsonLines::JsonLines(const std::filesystem::path& file, const Progress& progress)
    : state_(std::make_unique<State>(file)) {
  state_->find_lines(progress);
}
JsonLines::~JsonLines() = default;
JsonLines::JsonLines(JsonLines&&) noexcept = default;

int64_t JsonLines::size() const {
  return static_cast<int64_t>(state_->places.size());
}

std::string_view JsonLines::line(int64_t i) const {
  const State::Place& place = state_->places.at(static_cast<std::size_t>(i));
  return {state_->data + place.begin, place.bytes};
}

int64_t JsonLines::line_number(int64_t i) const {
  return state_->places.at(static_cast<std::size_t>(i)).number;
}

std::string JsonLines::where(int64_t i) const {
  return state_->file.string() + ":" + std::to_string(line_number(i));
}

const std::filesystem::path& JsonLines::file() const {
  return state_->file;
}

}  // namespace troupe
