#include "core/text/unicode.hpp"

#include <utf8proc.h>

#include <algorithm>
#include <stdexcept>
#include <vector>

namespace troupe {
namespace {

using Kind = Utf8Step::Kind;

utf8proc_category_t category_of(uint32_t code_point) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(code_point));
}

template <typename Map>
std::string map_characters(std::string_view text, Map map) {
  std::string mapped;
  mapped.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = utf8_step(text.substr(at));
    map(mapped, step.code_point);
    at += step.size;
  }
  return mapped;
}

void append_decomposed(std::vector<utf8proc_int32_t>& characters, uint32_t code_point, utf8proc_option_t options) {
  utf8proc_int32_t parts[64];
  int boundary_class = 0;
  const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(code_point), parts, std::size(parts),
                                             options, &boundary_class);
  if (count < 0 || count > static_cast<utf8proc_ssize_t>(std::size(parts))) {
    throw std::runtime_error("Unicode normalization failed at code point " + std::to_string(code_point));
  }
  characters.insert(characters.end(), parts, parts + count);
}

// Canonical ordering. utf8proc's own is quadratic in the length of a run of combining marks.
void sort_combining_marks(std::vector<utf8proc_int32_t>& characters) {
  const auto combining_class = [](utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; };
  for (auto at = characters.begin(); at != characters.end();) {
    if (*at < 0x300 || combining_class(*at) == 0) {
      ++at;
      continue;
    }
    const auto end = std::find_if(at, characters.end(), [&](auto c) { return combining_class(c) == 0; });
    std::stable_sort(at, end, [&](auto a, auto b) { return combining_class(a) < combining_class(b); });
    at = end;
  }
}

}  // namespace

Utf8Step utf8_step(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return {Kind::kCharacter, lead, 1};
  if (lead < 0xC2 || lead > 0xF4) return {Kind::kIllFormed, 0, 1};
  const size_t size = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // The second byte's range excludes overlong forms, surrogates and what lies past U+10FFFF.
  const uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  uint32_t code_point = lead & (0xFF >> (size + 1));
  for (size_t i = 1; i < size; ++i) {
    if (i >= text.size()) return {Kind::kIncomplete, 0, i};
    const uint8_t next = byte(i);
    if (next < (i == 1 ? low : 0x80) || next > (i == 1 ? high : 0xBF)) return {Kind::kIllFormed, 0, i};
    code_point = (code_point << 6) | (next & 0x3F);
  }
  return {Kind::kCharacter, code_point, size};
}

bool is_utf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = utf8_step(text.substr(at));
    if (step.kind != Kind::kCharacter) return false;
    at += step.size;
  }
  return true;
}

std::string to_valid_utf8(std::string_view text) {
  std::string valid;
  valid.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = utf8_step(text.substr(at));
    valid += step.kind == Kind::kCharacter ? text.substr(at, step.size) : kReplacementCharacter;
    at += step.size;
  }
  return valid;
}

void append_utf8(std::string& text, uint32_t code_point) {
  utf8proc_uint8_t bytes[4];
  const auto count = utf8proc_encode_char(static_cast<utf8proc_int32_t>(code_point), bytes);
  text.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(count));
}

size_t utf8_size(std::string_view text) {
  return utf8_step(text).size;
}

bool is_number(uint32_t code_point) {
  const auto category = category_of(code_point);
  return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL || category == UTF8PROC_CATEGORY_NO;
}

bool is_word(uint32_t code_point) {
  if (code_point == 0x200C || code_point == 0x200D) return true;  // Join_Control
  // Circled and squared letters: symbols, but alphabetic.
  if (code_point >= 0x24B6 && code_point <= 0x24E9) return true;
  if (code_point >= 0x1F130 && code_point <= 0x1F149) return true;
  if (code_point >= 0x1F150 && code_point <= 0x1F169) return true;
  if (code_point >= 0x1F170 && code_point <= 0x1F189) return true;
  switch (category_of(code_point)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return false;
  }
}

bool is_white_space(uint32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_printable(uint32_t code_point) {
  if (code_point == 0x20) return true;
  switch (category_of(code_point)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

std::string to_lower(std::string_view text) {
  return map_characters(text, [](std::string& lower, uint32_t c) {
    // The one character whose full lower case is two characters.
    if (c == 0x130) {
      lower += "i\xCC\x87";
    } else {
      append_utf8(lower, static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
    }
  });
}

std::string to_upper(std::string_view text) {
  return map_characters(text, [](std::string& upper, uint32_t c) {
    const auto mapped = c == 0xDF ? 0xDF : utf8proc_toupper(static_cast<utf8proc_int32_t>(c));
    append_utf8(upper, static_cast<uint32_t>(mapped));
  });
}

std::string to_normal_form(std::string_view text, NormalForm form) {
  const auto is_ascii = [](char c) { return static_cast<uint8_t>(c) < 0x80; };
  if (std::all_of(text.begin(), text.end(), is_ascii)) return std::string(text);
  int options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
  if (form == NormalForm::kNfkc || form == NormalForm::kNfkd) options |= UTF8PROC_COMPAT;
  std::vector<utf8proc_int32_t> characters;
  characters.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = utf8_step(text.substr(at));
    append_decomposed(characters, step.code_point, static_cast<utf8proc_option_t>(options));
    at += step.size;
  }
  sort_combining_marks(characters);
  auto count = static_cast<utf8proc_ssize_t>(characters.size());
  if (form == NormalForm::kNfc || form == NormalForm::kNfkc) {
    const auto compose = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    count = utf8proc_normalize_utf32(characters.data(), count, compose);
    if (count < 0) throw std::runtime_error(std::string("Unicode normalization failed: ") + utf8proc_errmsg(count));
  }
  std::string normal;
  normal.reserve(text.size());
  for (utf8proc_ssize_t i = 0; i < count; ++i) append_utf8(normal, static_cast<uint32_t>(characters[i]));
  return normal;
}

}  // namespace troupe
