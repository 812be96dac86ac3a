#include "core/text/unicode.hpp"

#include <gtest/gtest.h>

#include "core/text/byte_level.hpp"
#include "core/text/regex.hpp"

namespace troupe {
namespace {

TEST(Utf8, ReplacesEachMaximalIllFormedSubsequence) {
  EXPECT_EQ(to_valid_utf8("plain \xC3\xA9"), "plain \xC3\xA9");
  // The example of the Unicode standard, table 3-8: 61 F1 80 80 E1 80 C2 62 80 63 80 BF 64.
  EXPECT_EQ(to_valid_utf8("\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64"),
            "a\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"
            "b\xEF\xBF\xBD"
            "c\xEF\xBF\xBD\xEF\xBF\xBD"
            "d");
  EXPECT_EQ(to_valid_utf8("\xED\xA0\x80"), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD") << "a surrogate is three";
  EXPECT_EQ(to_valid_utf8("\xC0\x80"), "\xEF\xBF\xBD\xEF\xBF\xBD") << "an overlong form";
  EXPECT_EQ(to_valid_utf8("\xF4\x90\x80\x80"), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD") << "past U+10FFFF";
  EXPECT_EQ(to_valid_utf8("\xE2\x82"), "\xEF\xBF\xBD") << "cut short";
}

TEST(Utf8, ReadsEachCodePointBack) {
  for (uint32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    append_utf8(text, c);
    const Utf8Step step = utf8_step(text);
    ASSERT_TRUE(step.kind == Utf8Step::Kind::kCharacter && step.code_point == c && step.size == text.size()) << c;
  }
}

TEST(ByteLevel, IsABijectionOfBytes) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  std::string spelled;
  append_byte_level(spelled, all);
  EXPECT_TRUE(is_utf8(spelled));
  std::string back;
  append_bytes_of(back, spelled);
  EXPECT_EQ(back, all);
  EXPECT_EQ(character_of_byte(' '), 0x120u);
  EXPECT_EQ(character_of_byte('A'), uint32_t{'A'});
  EXPECT_EQ(byte_of_character(0x144), std::nullopt);
}

TEST(NormalForm, ComposesAndDecomposes) {
  EXPECT_EQ(to_normal_form("e\xCC\x81", NormalForm::kNfc), "\xC3\xA9");
  EXPECT_EQ(to_normal_form("\xC3\xA9", NormalForm::kNfd), "e\xCC\x81");
  EXPECT_EQ(to_normal_form("\xEF\xAC\x81", NormalForm::kNfkc), "fi");
  EXPECT_EQ(to_normal_form("\xEF\xAC\x81", NormalForm::kNfc), "\xEF\xAC\x81");
  // Marks of classes 230 and 220 change places; two of one class do not.
  EXPECT_EQ(to_normal_form("q\xCC\x87\xCC\xA3", NormalForm::kNfd), "q\xCC\xA3\xCC\x87");
  EXPECT_EQ(to_normal_form("q\xCC\x88\xCC\x87", NormalForm::kNfd), "q\xCC\x88\xCC\x87");
  EXPECT_EQ(to_normal_form("\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8", NormalForm::kNfc), "\xEA\xB0\x81");
}

TEST(NormalForm, SortsALongRunOfMarksQuickly) {
  std::string text = "e";
  for (int i = 0; i < 250'000; ++i) text += "\xCC\x81\xCC\xA3";
  EXPECT_EQ(to_normal_form(text, NormalForm::kNfd).size(), text.size());
}

bool matches(std::string_view pattern, std::string_view text) {
  Span match{};
  return Regex(pattern).find(text, 0, match);
}

TEST(Regex, MeansWhatOnigurumaMeans) {
  EXPECT_TRUE(matches("^\\s$", "\xC2\xA0"));
  EXPECT_FALSE(matches("\\s", "\xE1\xA0\x8E")) << "U+180E is no white space";
  EXPECT_TRUE(matches("^[^\\s\\p{L}\\p{N}]$", "\xE1\xA0\x8E"));
  EXPECT_TRUE(matches("^\\w$", "\xC2\xB2"));
  EXPECT_FALSE(matches("\\w", "\xE2\x82\x80")) << "subscript zero";
  EXPECT_TRUE(matches("(?i:'s)", "'\xC5\xBF")) << "the long s folds to s";
  EXPECT_TRUE(matches("^\\u4E00$", "\xE4\xB8\x80"));
}

TEST(Regex, RefusesWhatMeansSomethingElse) {
  for (const char* pattern :
       {"\\h", "[a&&b]", "[[:alpha:]]", "[\\W]", "(?m:.)", "[]a]", "\\", "(", "\\u12", "\\R", "\\K", "\\C"}) {
    EXPECT_THROW(Regex{pattern}, std::invalid_argument) << pattern;
  }
}

TEST(Regex, GivesUpOnABacktrackingPattern) {
  Span match{};
  EXPECT_THROW(Regex("(a+)+\\z").find(std::string(40, 'a') + "!", 0, match), std::runtime_error);
}

}  // namespace
}  // namespace troupe
