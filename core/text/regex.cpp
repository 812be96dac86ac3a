#define PCRE2_CODE_UNIT_WIDTH 8
#include "core/text/regex.hpp"

#include <pcre2.h>

#include <algorithm>
#include <cctype>
#include <stdexcept>

namespace troupe {
namespace {

constexpr size_t kMaxPatternBytes = size_t{1} << 16;
constexpr size_t kJitStackBytes = size_t{8} << 20;
constexpr uint32_t kMinMatchLimit = 1'000'000;

// Oniguruma's \\w: of the other numbers it takes those of Latin-1.
const std::string kWordClass = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}";

std::string shortened(std::string_view pattern) {
  return pattern.size() <= 120 ? std::string(pattern) : std::string(pattern.substr(0, 120)) + "...";
}

[[noreturn]] void refuse(std::string_view pattern, size_t offset, std::string_view reason) {
  throw std::invalid_argument("regular expression '" + shortened(pattern) + "' at offset " + std::to_string(offset) +
                              ": " + std::string(reason));
}

// What \s, \w, \d, \h... stand for: the words inside a set, and whether the set is of the others.
std::string class_of_escape(std::string_view pattern, size_t offset, char letter, bool in_set) {
  switch (letter) {
    case 's':
      return "\\p{White_Space}";
    case 'S':
      return "\\P{White_Space}";
    case 'w':
      return in_set ? kWordClass : "[" + kWordClass + "]";
    case 'W':
      if (in_set) refuse(pattern, offset, "\\W inside a set is not supported");
      return "[^" + kWordClass + "]";
    case 'd':
      return "\\p{Nd}";
    case 'D':
      return "\\P{Nd}";
    default:
      return {};
  }
}

bool escape_means_the_same(char letter) {
  constexpr std::string_view kSame = "nrtfvapPbBAzxu";
  const bool is_alphanumeric =
      (letter >= '0' && letter <= '9') || (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z');
  return !is_alphanumeric || kSame.find(letter) != std::string_view::npos;
}

// The letters of an option group: of "(?i-m:" those are "i-m". Empty for a look-ahead and the like.
std::string_view option_letters_at(std::string_view pattern, size_t at) {
  const size_t end = std::min(pattern.find_first_not_of("abcdefghijklmnopqrstuvwxyz-", at), pattern.size());
  const bool is_options = end < pattern.size() && (pattern[end] == ':' || pattern[end] == ')');
  return is_options ? pattern.substr(at, end - at) : std::string_view{};
}

// One thread's working memory for matching: made once, used by all patterns.
struct MatchScratch {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(32 * 1024, kJitStackBytes, nullptr);

  MatchScratch() {
    if (data == nullptr || context == nullptr || stack == nullptr) throw std::bad_alloc();
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~MatchScratch() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }
};

}  // namespace

std::string pcre2_pattern_of(std::string_view pattern) {
  std::string translated;
  bool in_set = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\') {
      if (i + 1 == pattern.size()) refuse(pattern, i, "ends in a backslash");
      const char letter = pattern[++i];
      const std::string replaced = class_of_escape(pattern, i, letter, in_set);
      if (!replaced.empty()) {
        translated += replaced;
      } else if (letter == 'u') {
        if (i + 4 >= pattern.size()) refuse(pattern, i, "\\u needs four hexadecimal digits");
        translated += "\\x{" + std::string(pattern.substr(i + 1, 4)) + "}";
        i += 4;
      } else if (escape_means_the_same(letter)) {
        translated += {'\\', letter};
      } else {
        refuse(pattern, i, std::string("the escape \\") + letter + " is not supported");
      }
      continue;
    }
    if (in_set && c == '[') refuse(pattern, i, "a set inside a set is not supported");
    if (in_set && c == '&' && pattern.substr(i, 2) == "&&") refuse(pattern, i, "set intersection is not supported");
    if (!in_set && pattern.substr(i, 2) == "(?" &&
        option_letters_at(pattern, i + 2).find('m') != std::string_view::npos) {
      refuse(pattern, i, "the option m is not supported");
    }
    if (!in_set && c == '[') {
      if (pattern.substr(i + 1, 1) == "]" || pattern.substr(i + 1, 2) == "^]") refuse(pattern, i, "an empty set");
      in_set = true;
    } else if (in_set && c == ']') {
      in_set = false;
    }
    translated += c;
  }
  return translated;
}

struct Regex::Compiled {
  std::string pattern;
  pcre2_code* code = nullptr;
  bool has_jit = false;

  Compiled() = default;
  Compiled(const Compiled&) = delete;
  Compiled& operator=(const Compiled&) = delete;
  ~Compiled() { pcre2_code_free(code); }
};

Regex::Regex(std::string_view oniguruma_pattern) {
  compile(pcre2_pattern_of(oniguruma_pattern));
}

Regex Regex::of_literal(std::string_view literal) {
  std::string pattern;
  for (const char c : literal) {
    // Each ASCII character that is no letter or digit may be escaped, and then stands for itself.
    const bool is_symbol = static_cast<uint8_t>(c) < 0x80 && !std::isalnum(static_cast<unsigned char>(c));
    if (is_symbol) pattern += '\\';
    pattern += c;
  }
  Regex regex;
  regex.compile(pattern);
  return regex;
}

void Regex::compile(const std::string& pattern) {
  if (pattern.size() > kMaxPatternBytes) refuse(pattern, kMaxPatternBytes, "is too long");
  auto compiled = std::make_shared<Compiled>();
  compiled->pattern = pattern;
  int error = 0;
  PCRE2_SIZE offset = 0;
  const uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
  compiled->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), options, &error, &offset, nullptr);
  if (compiled->code == nullptr) {
    PCRE2_UCHAR message[160];
    pcre2_get_error_message(error, message, std::size(message));
    refuse(pattern, offset, reinterpret_cast<const char*>(message));
  }
  compiled->has_jit = pcre2_jit_compile(compiled->code, PCRE2_JIT_COMPLETE) == 0;
  compiled_ = std::move(compiled);
}

bool Regex::find(std::string_view text, size_t from, Span& match) const {
  thread_local MatchScratch scratch;
  // A known split pattern backtracks at most once over a run of blanks, so the limit grows with the text, not its
  // square.
  const size_t limit = std::min<size_t>(kMinMatchLimit + 4 * (text.size() - from), UINT32_MAX);
  pcre2_set_match_limit(scratch.context, static_cast<uint32_t>(limit));
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const auto find_match = compiled_->has_jit ? pcre2_jit_match : pcre2_match;
  const uint32_t options = compiled_->has_jit ? 0 : PCRE2_NO_UTF_CHECK;
  const int found = find_match(compiled_->code, subject, text.size(), from, options, scratch.data, scratch.context);
  if (found == PCRE2_ERROR_NOMATCH) return false;
  if (found < 0) {
    PCRE2_UCHAR message[160];
    pcre2_get_error_message(found, message, std::size(message));
    throw std::runtime_error("split pattern '" + shortened(compiled_->pattern) + "' gave up at byte " +
                             std::to_string(from) + ": " + reinterpret_cast<const char*>(message));
  }
  const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(scratch.data);
  // \K in a lookahead may report a start past the end, or before `from`.
  if (offsets[0] > offsets[1] || offsets[0] < from) {
    throw std::runtime_error("split pattern '" + shortened(compiled_->pattern) + "' moves its match backwards");
  }
  match = {offsets[0], offsets[1]};
  return true;
}

}  // namespace troupe
