#include "core/text/decoder.hpp"

#include <optional>

#include "core/text/byte_level.hpp"
#include "core/text/unicode.hpp"

namespace troupe {
namespace {

std::optional<uint8_t> byte_of_token(std::string_view token) {
  if (token.size() != 6 || token.substr(0, 3) != "<0x" || token.back() != '>') return std::nullopt;
  uint8_t byte = 0;
  for (const char digit : token.substr(3, 2)) {
    const bool is_decimal = digit >= '0' && digit <= '9';
    const char letter = static_cast<char>(digit | 0x20);
    if (!is_decimal && (letter < 'a' || letter > 'f')) return std::nullopt;
    byte = static_cast<uint8_t>(byte * 16 + (is_decimal ? digit - '0' : letter - 'a' + 10));
  }
  return byte;
}

void replace_in(std::string& text, const std::string& from, const std::string& to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
}

}  // namespace

DecoderStream::DecoderStream(const DecoderRules& rules) : rules_(rules), strips_left_(rules.strip_count) {}

std::string DecoderStream::push(std::string_view token) {
  std::string text(token);
  for (const auto& [from, to] : rules_.replacements) replace_in(text, from, to);
  if (rules_.byte_fallback) {
    if (const auto byte = byte_of_token(text)) {
      byte_run_ += static_cast<char>(*byte);
      return {};
    }
    end_byte_run();
  }
  if (rules_.byte_level) {
    append_bytes_of(held_, text);
  } else {
    held_ += text;
  }
  return take_ready(false);
}

std::string DecoderStream::flush() {
  end_byte_run();
  std::string text = take_ready(true);
  strips_left_ = rules_.strip_count;
  return text;
}

void DecoderStream::end_byte_run() {
  if (is_utf8(byte_run_)) {
    held_ += byte_run_;
  } else {
    for (size_t i = 0; i < byte_run_.size(); ++i) held_ += kReplacementCharacter;
  }
  byte_run_.clear();
}

// Everything but an incomplete character at the end, which only the end itself makes certain.
std::string DecoderStream::take_ready(bool is_end) {
  std::string ready;
  size_t at = 0;
  while (at < held_.size()) {
    const std::string_view rest = std::string_view(held_).substr(at);
    const Utf8Step step = utf8_step(rest);
    if (step.kind == Utf8Step::Kind::kIncomplete && !is_end) break;
    ready += step.kind == Utf8Step::Kind::kCharacter ? rest.substr(0, step.size) : kReplacementCharacter;
    at += step.size;
  }
  held_.erase(0, at);
  return stripped(std::move(ready));
}

std::string DecoderStream::stripped(std::string text) {
  size_t at = 0;
  while (strips_left_ > 0 && at < text.size()) {
    if (text.compare(at, rules_.strip_text.size(), rules_.strip_text) != 0) {
      strips_left_ = 0;
    } else {
      at += rules_.strip_text.size();
      --strips_left_;
    }
  }
  return text.substr(at);
}

}  // namespace troupe
