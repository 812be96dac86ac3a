// UTF-8 and the character properties that tokenizers and templates ask for. Pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace troupe {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

// One step through UTF-8. `size` is the number of bytes taken, at least 1.
struct Utf8Step {
  enum class Kind {
    kCharacter,   // a well-formed character
    kIllFormed,   // a maximal ill-formed subsequence: counts as one U+FFFD
    kIncomplete,  // the text ends inside a character that more bytes could complete
  };
  Kind kind;
  uint32_t code_point;  // of kCharacter
  size_t size;
};

// Reads the step at the front of a text that is not empty.
Utf8Step utf8_step(std::string_view text);

bool is_utf8(std::string_view text);
// The text with U+FFFD for each maximal ill-formed subsequence (an incomplete end counts as one).
std::string to_valid_utf8(std::string_view text);
void append_utf8(std::string& text, uint32_t code_point);
// The size of the character at the front of well-formed, non-empty text.
size_t utf8_size(std::string_view text);

bool is_number(uint32_t code_point);       // general category Nd, Nl or No
bool is_word(uint32_t code_point);         // \w: alphabetic, mark, decimal digit or connector punctuation
bool is_white_space(uint32_t code_point);  // the Unicode property White_Space
bool is_printable(uint32_t code_point);    // Python's str.isprintable

// Case mapping character by character. lower() is full; upper() is simple (one character to one), so "ß" stays.
std::string to_lower(std::string_view text);
std::string to_upper(std::string_view text);

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };
// Of well-formed text. Time n log n even for long runs of combining marks.
std::string to_normal_form(std::string_view text, NormalForm form);

}  // namespace troupe
