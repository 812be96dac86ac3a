// Numbers as people and models write them:
//   7   -7   +7   U+2212 7   1,234,567.89 (commas only before groups of three)   .5   1.5e-3   3/4   \frac{3}{4}   50%
// A sign counts only where no operand stands before it: "3-4" and "x - 4" hold 4, not -4. Digits right after an ASCII
// letter or underscore ("H2O", "x_1") are no number. "1,2" is two numbers; so is "3/4/5" three. Independent of the
// locale.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace troupe {

struct Number {
  double value = 0;     // finite; of 50%: 50, or 0.5 with percent_is_hundredth
  std::string decimal;  // the same exactly, "-1234.5" without superfluous zeros; "" for fractions and huge exponents
};

// All numbers of the text, from left to right. Those beyond a double's range are left out.
std::vector<Number> numbers_in(std::string_view text, bool percent_is_hundredth = false);

// The number that the whole text is (white space, a leading '$' and a final '.' allowed); none if it is not just that.
std::optional<Number> number_of(std::string_view text, bool percent_is_hundredth = false);

// |a - b| <= absolute + relative |b|; with both 0 and both decimal: exactly equal, whatever their length.
bool equal_numbers(const Number& a, const Number& b, double absolute, double relative);

}  // namespace troupe
