#include "core/rewards/extraction.hpp"

#include <string>

namespace troupe {
namespace {

constexpr std::string_view kSpace = " \t\r\n\v\f";

}  // namespace

std::optional<std::string_view> inside_tag(std::string_view text, std::string_view tag) {
  const std::string open = "<" + std::string(tag) + ">";
  const std::string close = "</" + std::string(tag) + ">";
  const std::size_t last_close = text.rfind(close);
  if (last_close == std::string_view::npos) return std::nullopt;
  // The last opening that ends before that closing.
  const std::string_view before = text.substr(0, last_close);
  const std::size_t last_open = before.rfind(open);
  if (last_open == std::string_view::npos) return std::nullopt;
  const std::string_view inside = before.substr(last_open + open.size());
  return inside.substr(0, inside.find(close));
}

std::optional<std::string_view> inside_boxed(std::string_view text) {
  for (std::size_t end = text.size(); end > 0;) {
    std::size_t start = std::string_view::npos;
    for (const std::string_view command : {"\\boxed{", "\\fbox{"}) {
      const std::size_t at = text.substr(0, end).rfind(command);
      if (at != std::string_view::npos && (start == std::string_view::npos || at + command.size() > start))
        start = at + command.size();
    }
    if (start == std::string_view::npos) return std::nullopt;
    int depth = 1;
    for (std::size_t i = start; i < text.size(); ++i) {
      if (text[i] == '{') ++depth;
      if (text[i] == '}' && --depth == 0) return text.substr(start, i - start);
    }
    end = start - 1;  // its braces do not close: an earlier one may
  }
  return std::nullopt;
}

std::optional<std::string_view> after_equals(std::string_view text) {
  const std::size_t at = text.rfind('=');
  if (at == std::string_view::npos) return std::nullopt;
  return text.substr(at + 1);
}

std::string_view trimmed(std::string_view text) {
  const std::size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

std::string_view last_line(std::string_view text) {
  const std::string_view body = trimmed(text);
  const std::size_t newline = body.find_last_of("\r\n");
  return newline == std::string_view::npos ? body : trimmed(body.substr(newline + 1));
}

std::string beginning(std::string_view text) {
  constexpr std::size_t kShown = 60;
  if (text.size() <= kShown) return std::string(text);
  std::size_t end = kShown;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return std::string(text.substr(0, end)) + "...";
}

int64_t occurrences(std::string_view text, std::string_view part) {
  int64_t count = 0;
  for (std::size_t at = text.find(part); at != std::string_view::npos && !part.empty();
       at = text.find(part, at + part.size()))
    ++count;
  return count;
}

}  // namespace troupe
