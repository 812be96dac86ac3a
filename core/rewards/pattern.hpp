// A user's regular expression: PCRE2 syntax, UTF-8, with bounded work. Text that is not well-formed UTF-8 is searched
// too; the ill-formed bytes match nothing. Immutable; any number of threads may search at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace troupe {

struct PatternOptions {
  bool ignore_case = false;
  bool dot_matches_newline = true;
};

class Pattern {
 public:
  // Throws std::invalid_argument with the pattern, the offset at fault and the reason.
  explicit Pattern(const std::string& pattern, PatternOptions options = {});

  // The whole text matches. The two below throw std::runtime_error naming the pattern when one search takes more than
  // 10 million steps (a pattern that backtracks without end).
  bool matches(std::string_view text) const;
  // The groups of the first match (the last one with `last`), 0 the whole; empty when there is none. A group that took
  // no part is "". The views point into `text`.
  std::vector<std::string_view> find(std::string_view text, bool last = false) const;
  int64_t num_groups() const;

 private:
  struct Compiled;
  std::vector<std::string_view> find_from(std::string_view text, std::size_t from, uint32_t options) const;
  std::string source_;
  std::shared_ptr<const Compiled> compiled_;
};

}  // namespace troupe
