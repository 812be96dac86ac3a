#include "core/rewards/numbers.hpp"

#include <gtest/gtest.h>

#include "core/rewards/extraction.hpp"

namespace troupe {
namespace {

std::vector<double> values(const std::string& text, bool percent = false) {
  std::vector<double> out;
  for (const Number& n : numbers_in(text, percent)) out.push_back(n.value);
  return out;
}

using Values = std::vector<double>;

TEST(Numbers, AreFoundInRunningText) {
  EXPECT_EQ(values("So 12 plus 30 makes 42."), (Values{12, 30, 42}));
  EXPECT_EQ(values("no digits at all"), Values{});
  EXPECT_EQ(values(""), Values{});
  EXPECT_EQ(values("3.50 and .5 and 7."), (Values{3.5, 0.5, 7}));
  EXPECT_EQ(values("7kg of 2nd-hand \xE8\x8B\xB9\xE6\x9E\x9C"
                   "5\xE4\xB8\xAA"),
            (Values{7, 2, 5}));
}

TEST(Numbers, SignsCountOnlyWhereNoOperandStandsBefore) {
  EXPECT_EQ(values("-7 +7 (-3)"), (Values{-7, 7, -3}));
  EXPECT_EQ(values("3-4 = -1"), (Values{3, 4, -1}));
  EXPECT_EQ(values("x-4, 50%-4"), (Values{4, 50, 4}));
  EXPECT_EQ(values("9 - 4"), (Values{9, 4}));
  EXPECT_EQ(values("\xE2\x88\x92"
                   "8"),
            (Values{-8}));
  EXPECT_EQ(values("-$5 and $-6"), (Values{-5, -6}));
}

TEST(Numbers, CommasSeparateThousandsOnlyInGroupsOfThree) {
  EXPECT_EQ(values("1,234,567.5"), (Values{1234567.5}));
  EXPECT_EQ(values("1,2 and 12,34 and 1,2345"), (Values{1, 2, 12, 34, 1, 2345}));
  EXPECT_EQ(values("1234,567"), (Values{1234, 567}));
  EXPECT_EQ(values("(1,234)"), (Values{1234}));
}

TEST(Numbers, FractionsInBothForms) {
  EXPECT_EQ(values("3/4 and -1/2"), (Values{0.75, -0.5}));
  EXPECT_EQ(values("\\frac{3}{4} -\\frac{1}{2} \\dfrac{-1}{4}"), (Values{0.75, -0.5, -0.25}));
  EXPECT_EQ(values("12/05/2024"), (Values{12, 5, 2024}));
  EXPECT_EQ(values("1/0"), (Values{1, 0}));
  EXPECT_EQ(values("\\frac{3}{x}"), (Values{3}));
}

TEST(Numbers, PercentIsPassedOverOrAHundredth) {
  EXPECT_EQ(values("50% and 0.1%"), (Values{50, 0.1}));
  EXPECT_EQ(values("50% and 0.1% and 7\\%", true), (Values{0.5, 0.001, 0.07}));
}

TEST(Numbers, ExponentsAndWordsWithDigits) {
  EXPECT_EQ(values("1.5e-3 2E5 3e"), (Values{0.0015, 200000, 3}));
  EXPECT_EQ(values("H2O x_1 GPT4 step3"), Values{});
  EXPECT_EQ(values("1e999 5 1e-999"), (Values{5, 0}));
  EXPECT_EQ(values("1e99999999999999999999 5"), (Values{5}));
}

TEST(Numbers, AWholeTextIsOneNumberOrNone) {
  EXPECT_EQ(number_of(" 42. ")->value, 42);
  EXPECT_EQ(number_of("$1,000")->value, 1000);
  EXPECT_EQ(number_of("-3/4")->value, -0.75);
  EXPECT_FALSE(number_of("42 apples"));
  EXPECT_FALSE(number_of("4 2"));
  EXPECT_FALSE(number_of(""));
  EXPECT_FALSE(number_of("1e999"));
  EXPECT_FALSE(number_of("-"));
}

bool equal(const std::string& a, const std::string& b, double absolute = 0, double relative = 0) {
  return equal_numbers(*number_of(a), *number_of(b), absolute, relative);
}

TEST(Numbers, CompareExactlyWhateverTheirLength) {
  EXPECT_TRUE(equal("007", "7.00"));
  EXPECT_TRUE(equal("1e3", "1,000"));
  EXPECT_TRUE(equal("-0", "0.0"));
  EXPECT_TRUE(equal(".5", "0.50"));
  EXPECT_TRUE(equal("0.00012", "1.2e-4"));
  EXPECT_TRUE(equal("3/4", "0.75"));
  EXPECT_FALSE(equal("9007199254740993", "9007199254740992"));
  EXPECT_FALSE(equal("0.30000000000000004", "0.3"));
  EXPECT_FALSE(equal("-7", "7"));
}

TEST(Numbers, CompareWithinTolerance) {
  EXPECT_TRUE(equal("3.14", "3.14159", 0.01));
  EXPECT_FALSE(equal("3.1", "3.14159", 0.01));
  EXPECT_TRUE(equal("99", "100", 0, 0.01));
  EXPECT_FALSE(equal("98", "100", 0, 0.01));
  EXPECT_TRUE(equal("0.333", "1/3", 0.001));
}

TEST(Extraction, FindsTheLastTagAndBox) {
  EXPECT_EQ(inside_tag("<a>1</a> x <a>2</a>", "a"), "2");
  EXPECT_EQ(inside_tag("<a>1</a> <a>2", "a"), "1");
  EXPECT_EQ(inside_tag("<a><a>3</a>", "a"), "3");
  EXPECT_EQ(inside_tag("</a> <a>", "a"), std::nullopt);
  EXPECT_EQ(inside_tag("<a></a>", "a"), "");
  EXPECT_EQ(inside_boxed("\\boxed{1} \\boxed{\\frac{1}{2}}"), "\\frac{1}{2}");
  EXPECT_EQ(inside_boxed("\\boxed{1} \\boxed{2"), "1");
  EXPECT_EQ(inside_boxed("\\fbox{7}"), "7");
  EXPECT_EQ(inside_boxed("boxed{7}"), std::nullopt);
  EXPECT_EQ(after_equals("a = 1 = 2"), " 2");
  EXPECT_EQ(last_line("one\r\n two \n\n"), "two");
  EXPECT_EQ(occurrences("aaaa", "aa"), 2);
}

TEST(Extraction, NamesTheBeginningInWholeCharacters) {
  std::string text(59, 'x');
  text += "\xC3\xA9\xC3\xA9";
  EXPECT_EQ(beginning(text), std::string(59, 'x') + "...");
  EXPECT_EQ(beginning("short"), "short");
}

}  // namespace
}  // namespace troupe
