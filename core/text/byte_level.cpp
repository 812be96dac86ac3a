#include "core/text/byte_level.hpp"

#include <array>

#include "core/text/unicode.hpp"

namespace troupe {
namespace {

struct Alphabet {
  std::array<uint32_t, 256> characters{};
  std::array<std::string, 256> spellings;
  std::array<int, kByteAlphabetEnd> bytes;

  Alphabet() {
    bytes.fill(-1);
    uint32_t next = 0x100;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xFF && byte != 0xAD);
      characters[byte] = printable ? byte : next++;
      bytes[characters[byte]] = static_cast<int>(byte);
      append_utf8(spellings[byte], characters[byte]);
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet kAlphabet;
  return kAlphabet;
}

}  // namespace

uint32_t character_of_byte(uint8_t byte) {
  return alphabet().characters[byte];
}

std::optional<uint8_t> byte_of_character(uint32_t code_point) {
  if (code_point >= kByteAlphabetEnd || alphabet().bytes[code_point] < 0) return std::nullopt;
  return static_cast<uint8_t>(alphabet().bytes[code_point]);
}

void append_byte_level(std::string& spelled, std::string_view text) {
  const auto& spellings = alphabet().spellings;
  for (const char c : text) spelled += spellings[static_cast<uint8_t>(c)];
}

void append_bytes_of(std::string& bytes, std::string_view word) {
  const size_t start = bytes.size();
  for (size_t at = 0; at < word.size();) {
    const Utf8Step step = utf8_step(word.substr(at));
    const auto byte = byte_of_character(step.code_point);
    if (!byte) {
      bytes.resize(start);
      bytes += word;
      return;
    }
    bytes += static_cast<char>(*byte);
    at += step.size;
  }
}

}  // namespace troupe
