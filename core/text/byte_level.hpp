// The byte-level alphabet of GPT-2: each byte is written as one printable character, so that a vocabulary of arbitrary
// bytes is a vocabulary of readable words. Bytes that are printable in Latin-1 stand for themselves; the other 68, in
// order, are U+0100, U+0101, ... ("Ġ", U+0120, is the space).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace troupe {

inline constexpr uint32_t kByteAlphabetEnd = 0x144;  // one past the alphabet's highest code point

// The character that stands for the byte.
uint32_t character_of_byte(uint8_t byte);
// The byte that the character stands for, if it is of the alphabet.
std::optional<uint8_t> byte_of_character(uint32_t code_point);
// Appends the characters of the text's bytes.
void append_byte_level(std::string& spelled, std::string_view text);
// Appends the bytes that the word's characters stand for; a word with a character outside the alphabet is appended as
// is.
void append_bytes_of(std::string& bytes, std::string_view word);

}  // namespace troupe
