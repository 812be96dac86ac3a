// A JSON-lines file of any size: mapped, never read into memory; the places of its lines are found once.
// A byte-order mark at the start, CRLF line ends and lines of white space alone are passed over.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace troupe {

class JsonLines {
 public:
  // Called now and then while the places are found: bytes seen, bytes in all.
  using Progress = std::function<void(uint64_t done, uint64_t total)>;

  // Throws std::runtime_error naming the file when it can't be read or holds no line. The file must not be
  // cut short while this object lives.
  explicit JsonLines(const std::filesystem::path& file, const Progress& progress = {});
  ~JsonLines();
  JsonLines(JsonLines&&) noexcept;

  int64_t size() const;                    // lines that are not blank
  std::string_view line(int64_t i) const;  // of the mapping: valid while this object lives; any thread
  int64_t line_number(int64_t i) const;    // 1-based in the file
  std::string where(int64_t i) const;      // "FILE:LINE", for messages
  const std::filesystem::path& file() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace troupe
