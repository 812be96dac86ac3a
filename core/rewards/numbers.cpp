#include "core/rewards/numbers.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>

#include "core/rewards/extraction.hpp"

namespace troupe {
namespace {

constexpr std::string_view kMinusSign = "\xe2\x88\x92";  // U+2212
constexpr int kMaxExponent = 400;                        // longer exponents get no exact decimal form

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

// Digits of an unsigned decimal number as written: value = 0.digits x 10^point.
struct Digits {
  std::string digits;
  int64_t point = 0;
};

// Reads from left to right; every read_ moves the position past what it took, or leaves it and returns nothing.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  std::size_t at() const { return at_; }
  bool done() const { return at_ >= text_.size(); }
  void skip(std::size_t count = 1) { at_ += count; }
  char before() const { return at_ > 0 ? text_[at_ - 1] : '\0'; }
  char look(std::size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0'; }

  bool take(std::string_view what) {
    if (text_.substr(at_, what.size()) != what) return false;
    at_ += what.size();
    return true;
  }

  // -1 or +1; 0 when no sign stands here. A sign must touch what it belongs to and follow no operand.
  int read_sign() {
    const std::size_t start = at_;
    const int sign = take("-") || take(kMinusSign) ? -1 : take("+") ? 1 : 0;
    if (sign == 0) return 0;
    const bool operand_before = start > 0 && (is_digit(text_[start - 1]) || is_letter(text_[start - 1]) ||
                                              text_[start - 1] == ')' || text_[start - 1] == '%');
    if (operand_before) {
      at_ = start;
      return 0;
    }
    return sign;
  }

  std::optional<Digits> read_decimal() {
    if (!is_digit(look()) && !(look() == '.' && is_digit(look(1)))) return std::nullopt;
    Digits out;
    while (is_digit(look())) out.digits += text_[at_++];
    if (!out.digits.empty() && out.digits.size() <= 3) read_thousands(out.digits);
    out.point = static_cast<int64_t>(out.digits.size());
    if (look() == '.' && is_digit(look(1))) {
      skip();
      while (is_digit(look())) out.digits += text_[at_++];
    }
    read_exponent(out);
    return out;
  }

 private:
  // ",ddd" as often as it stands there, and not before a fourth digit.
  void read_thousands(std::string& digits) {
    while (look() == ',' && is_digit(look(1)) && is_digit(look(2)) && is_digit(look(3)) && !is_digit(look(4))) {
      digits += text_.substr(at_ + 1, 3);
      skip(4);
    }
  }

  void read_exponent(Digits& out) {
    if (look() != 'e' && look() != 'E') return;
    const std::size_t digits_at = look(1) == '-' || look(1) == '+' ? 2 : 1;
    if (!is_digit(look(digits_at))) return;
    const bool negative = look(1) == '-';
    skip(digits_at);
    int64_t exponent = 0;
    for (; is_digit(look()); skip()) exponent = std::min<int64_t>(exponent * 10 + (look() - '0'), 1'000'000);
    out.point += negative ? -exponent : exponent;
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

double value_of(const Digits& d) {
  const std::string text = "0." + d.digits + "e" + std::to_string(d.point);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  // Out of range: too small is as good as 0, too large is told by infinity.
  if (error == std::errc::result_out_of_range) return d.point > 0 ? HUGE_VAL : 0;
  return value;
}

// "1234.5": without leading or trailing zeros, "0" for zero, "" when the point lies too far away.
std::string decimal_of(const Digits& d, bool negative) {
  const std::size_t first = d.digits.find_first_not_of('0');
  if (first == std::string::npos) return "0";
  std::string digits = d.digits.substr(first, d.digits.find_last_not_of('0') - first + 1);
  int64_t point = d.point - static_cast<int64_t>(first);
  if (std::abs(point) > kMaxExponent) return "";
  if (point <= 0) digits.insert(0, static_cast<std::size_t>(1 - point), '0'), point = 1;
  const auto whole = static_cast<std::size_t>(point);
  if (digits.size() < whole) digits.append(whole - digits.size(), '0');
  if (digits.size() > whole) digits.insert(whole, ".");
  return (negative ? "-" : "") + digits;
}

Number plain(const Digits& d, bool negative) {
  const double value = value_of(d);
  return {negative ? -value : value, decimal_of(d, negative)};
}

// \frac{a}{b}, with either in braces.
std::optional<Number> read_latex_fraction(Scanner& s, bool negative) {
  if (!s.take("\\frac{") && !s.take("\\dfrac{") && !s.take("\\tfrac{")) return std::nullopt;
  const bool flip = s.read_sign() < 0;
  const auto above = s.read_decimal();
  if (!above || !s.take("}{")) return std::nullopt;
  const auto below = s.read_decimal();
  if (!below || !s.take("}") || value_of(*below) == 0) return std::nullopt;
  const double value = value_of(*above) / value_of(*below);
  return Number{negative != flip ? -value : value, ""};
}

std::optional<Number> read_number(Scanner& s, bool percent_is_hundredth) {
  const Scanner start = s;
  const bool negative = s.read_sign() < 0;
  if (s.at() != start.at()) s.take("$");  // -$5
  if (s.look() == '\\') {
    const auto fraction = read_latex_fraction(s, negative);
    if (!fraction) s = start;
    return fraction;
  }
  auto digits = s.read_decimal();
  if (!digits) {
    s = start;
    return std::nullopt;
  }
  if (start.before() != '/' && s.look() == '/' && is_digit(s.look(1))) {
    Scanner ahead = s;
    ahead.skip();
    const auto below = ahead.read_decimal();
    const bool chain = ahead.look() == '/' && is_digit(ahead.look(1));
    if (below && !chain && value_of(*below) != 0) {
      s = ahead;
      const double value = value_of(*digits) / value_of(*below);
      return Number{negative ? -value : value, ""};
    }
  }
  if (s.take("%") || s.take("\\%"))
    if (percent_is_hundredth) digits->point -= 2;
  return plain(*digits, negative);
}

}  // namespace

std::vector<Number> numbers_in(std::string_view text, bool percent_is_hundredth) {
  std::vector<Number> out;
  Scanner s(text);
  while (!s.done()) {
    if (is_letter(s.look())) {  // a word with its digits: "H2O"
      while (is_letter(s.look()) || is_digit(s.look())) s.skip();
      continue;
    }
    const auto number = read_number(s, percent_is_hundredth);
    if (!number)
      s.skip();
    else if (std::isfinite(number->value))
      out.push_back(*number);
  }
  return out;
}

std::optional<Number> number_of(std::string_view text, bool percent_is_hundredth) {
  Scanner s(trimmed(text));
  s.take("$");
  const auto number = read_number(s, percent_is_hundredth);
  if (!number || !std::isfinite(number->value)) return std::nullopt;
  s.take(".");
  if (!s.done()) return std::nullopt;
  return number;
}

bool equal_numbers(const Number& a, const Number& b, double absolute, double relative) {
  if (absolute == 0 && relative == 0 && !a.decimal.empty() && !b.decimal.empty()) return a.decimal == b.decimal;
  return std::abs(a.value - b.value) <= absolute + relative * std::abs(b.value);
}

}  // namespace troupe
