#include "core/generate/answer_text.hpp"

#include <algorithm>

namespace troupe {
namespace {

size_t first_stop(const std::string& text, const std::vector<std::string>& stops) {
  size_t first = std::string::npos;
  for (const std::string& stop : stops) first = std::min(first, text.find(stop));
  return first;
}

}  // namespace

bool reaches_stop(const TextDecoder& decode, std::span<const int32_t> tokens, const std::vector<std::string>& stops) {
  if (stops.empty()) return false;
  size_t longest = 0;
  for (const std::string& stop : stops) longest = std::max(longest, stop.size());
  // A token is a byte at least, so a stop string that ends here lies within that many tokens; special ones have no text
  // and a character may be split, hence some more. The window's first character may be a torn one: the whole decides.
  constexpr size_t kMargin = 8;
  const size_t window = std::min(tokens.size(), longest + kMargin);
  if (first_stop(decode(tokens.last(window)), stops) == std::string::npos) return false;
  return window == tokens.size() || first_stop(decode(tokens), stops) != std::string::npos;
}

std::string final_text(const TextDecoder& decode, std::span<const int32_t> tokens,
                       const std::vector<std::string>& stops) {
  std::string text = decode(tokens);
  text.resize(std::min(text.size(), first_stop(text, stops)));
  return text;
}

}  // namespace troupe
