// A split pattern of tokenizer.json. These are written for Oniguruma (Ruby syntax, Unicode); this class runs them on
// PCRE2 (UTF, UCP, JIT) with the same meaning: \s, \w and \d become the Unicode properties that Oniguruma means, ^ and
// $ match at lines. What would mean something else in PCRE2 (\h, set intersection, nested sets, ...) is refused.
//
// Threads: immutable; any number of threads may search at once.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace troupe {

struct Span {
  size_t begin;
  size_t end;  // one past
};

class Regex {
 public:
  // Throws std::invalid_argument with the pattern and the offset at fault.
  explicit Regex(std::string_view oniguruma_pattern);

  // Finds the first match at or after `from` in well-formed UTF-8. Returns false if there is none. Throws
  // std::runtime_error when one search exceeds the match limit (a pattern that backtracks without end).
  bool find(std::string_view text, size_t from, Span& match) const;

  // Matches this very text, escaped.
  static Regex of_literal(std::string_view literal);

 private:
  struct Compiled;
  Regex() = default;
  void compile(const std::string& pattern);
  std::shared_ptr<const Compiled> compiled_;
};

// The Oniguruma pattern in PCRE2's syntax. Throws std::invalid_argument for a construct of another meaning there.
std::string pcre2_pattern_of(std::string_view oniguruma_pattern);

}  // namespace troupe
