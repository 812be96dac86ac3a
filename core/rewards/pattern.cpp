#define PCRE2_CODE_UNIT_WIDTH 8
#include "core/rewards/pattern.hpp"

#include <pcre2.h>

#include <array>
#include <cstdint>
#include <stdexcept>

namespace troupe {
namespace {

constexpr uint32_t kMaxSteps = 10'000'000;
constexpr uint32_t kMaxHeapKib = 64 * 1024;

std::string message_of(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

}  // namespace

struct Pattern::Compiled {
  pcre2_code* code = nullptr;
  pcre2_match_context* context = nullptr;
  Compiled() = default;
  Compiled(const Compiled&) = delete;
  Compiled& operator=(const Compiled&) = delete;
  ~Compiled() {
    pcre2_match_context_free(context);
    pcre2_code_free(code);
  }
};

Pattern::Pattern(const std::string& pattern, PatternOptions options) : source_(pattern) {
  uint32_t flags = PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF | PCRE2_NEVER_BACKSLASH_C;
  if (options.ignore_case) flags |= PCRE2_CASELESS;
  if (options.dot_matches_newline) flags |= PCRE2_DOTALL;
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto compiled = std::make_shared<Compiled>();
  compiled->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), flags, &error, &offset, nullptr);
  if (!compiled->code)
    throw std::invalid_argument("pattern \"" + pattern + "\", character " + std::to_string(offset) + ": " +
                                message_of(error));
  compiled->context = pcre2_match_context_create(nullptr);
  pcre2_set_match_limit(compiled->context, kMaxSteps);
  pcre2_set_heap_limit(compiled->context, kMaxHeapKib);
  compiled_ = std::move(compiled);
}

std::vector<std::string_view> Pattern::find_from(std::string_view text, std::size_t from, uint32_t options) const {
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data(
      pcre2_match_data_create_from_pattern(compiled_->code, nullptr), &pcre2_match_data_free);
  const int count = pcre2_match(compiled_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from, options,
                                data.get(), compiled_->context);
  if (count == PCRE2_ERROR_NOMATCH) return {};
  if (count < 0)
    throw std::runtime_error("pattern \"" + source_ + "\" on a text of " + std::to_string(text.size()) +
                             " bytes: " + message_of(count));
  const PCRE2_SIZE* at = pcre2_get_ovector_pointer(data.get());
  std::vector<std::string_view> groups(pcre2_get_ovector_count(data.get()));
  for (std::size_t g = 0; g < groups.size(); ++g)
    if (at[2 * g] != PCRE2_UNSET && at[2 * g + 1] >= at[2 * g])
      groups[g] = text.substr(at[2 * g], at[2 * g + 1] - at[2 * g]);
  return groups;
}

int64_t Pattern::num_groups() const {
  uint32_t count = 0;
  pcre2_pattern_info(compiled_->code, PCRE2_INFO_CAPTURECOUNT, &count);
  return count;
}

bool Pattern::matches(std::string_view text) const {
  // The end of a well-formed stretch counts as an end for PCRE2, so the length is compared too.
  const auto found = find_from(text, 0, PCRE2_ANCHORED | PCRE2_ENDANCHORED);
  return !found.empty() && found[0].size() == text.size();
}

std::vector<std::string_view> Pattern::find(std::string_view text, bool last) const {
  std::vector<std::string_view> best = find_from(text, 0, 0);
  if (!last) return best;
  for (std::vector<std::string_view> next = best; !next.empty();) {
    best = std::move(next);
    // A match of nothing would be found again at its own place: the next one must not be empty.
    const std::size_t end = static_cast<std::size_t>(best[0].data() - text.data()) + best[0].size();
    next = find_from(text, end, best[0].empty() ? PCRE2_NOTEMPTY_ATSTART : 0);
  }
  return best;
}

}  // namespace troupe
