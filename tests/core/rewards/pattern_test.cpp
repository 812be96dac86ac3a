#include "core/rewards/pattern.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <stdexcept>

namespace troupe {
namespace {

TEST(Pattern, MatchesTheWholeTextOnly) {
  const Pattern p("a+");
  EXPECT_TRUE(p.matches("aaa"));
  EXPECT_FALSE(p.matches("aab"));
  EXPECT_FALSE(p.matches("aaa\n"));
  EXPECT_FALSE(p.matches(""));
  EXPECT_TRUE(Pattern("a|ab").matches("ab"));  // the first alternative is not enough
}

TEST(Pattern, FindsTheFirstOrTheLast) {
  const Pattern p("(\\d+)(x)?");
  EXPECT_EQ(p.find("a 1 b 22x")[1], "1");
  EXPECT_EQ(p.find("a 1 b 22x", true)[1], "22");
  EXPECT_EQ(p.find("1")[2], "");
  EXPECT_TRUE(p.find("none").empty());
  EXPECT_EQ(Pattern("b*").find("abb", true)[0], "");  // matches of nothing end
}

TEST(Pattern, KnowsCaseLinesAndUnicode) {
  EXPECT_TRUE(Pattern("\xC3\x84pfel", {.ignore_case = true}).matches("\xC3\xA4PFEL"));
  EXPECT_TRUE(Pattern("a.b").matches("a\nb"));
  EXPECT_FALSE(Pattern("a.b", {.dot_matches_newline = false}).matches("a\nb"));
  EXPECT_TRUE(Pattern("^.$").matches("\xE2\x82\xAC"));  // one character, three bytes
}

TEST(Pattern, IllFormedTextIsSearchedToo) {
  EXPECT_EQ(Pattern("b+").find("\xFF\xFE"
                               "abb\xC3")[0],
            "bb");
  EXPECT_FALSE(Pattern(".*").matches("a\xFF"));
}

TEST(Pattern, AFaultyOneIsToldWithItsPlace) {
  try {
    Pattern("a(b");
    FAIL();
  } catch (const std::invalid_argument& error) {
    EXPECT_NE(std::string(error.what()).find("\"a(b\", character 3"), std::string::npos) << error.what();
  }
  EXPECT_THROW(Pattern("\\C"), std::invalid_argument);
}

TEST(Pattern, EndlessBacktrackingEndsInAnError) {
  const Pattern p("(a+)+b");
  const auto start = std::chrono::steady_clock::now();
  EXPECT_THROW(p.matches(std::string(60, 'a') + "!b"), std::runtime_error);
  EXPECT_THROW(p.find(std::string(60, 'a') + "!b", true), std::runtime_error);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

}  // namespace
}  // namespace troupe
