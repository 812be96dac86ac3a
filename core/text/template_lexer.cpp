#include "core/text/template_lexer.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <stdexcept>

#include "core/text/template_value.hpp"
#include "core/text/unicode.hpp"

namespace troupe::jinja {
namespace {

constexpr size_t kMaxSourceBytes = size_t{1} << 20;

// Longer ones first, so that the first that fits is the longest.
constexpr std::array<std::string_view, 25> kOperators = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                                         "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                                         ">",  "<",  "=",  ".",  ":",  "|",  ","};

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_name_start(char c) {
  return std::isalpha(static_cast<unsigned char>(c)) || c == '_';
}
bool is_name_part(char c) {
  return is_name_start(c) || is_digit(c);
}

// All line ends become "\n", and one at the end of the source goes.
std::string with_plain_newlines(std::string_view source) {
  std::string plain;
  plain.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      plain += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      plain += source[i];
    }
  }
  if (plain.ends_with('\n')) plain.pop_back();
  return plain;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(with_plain_newlines(source)) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) {
      const size_t tag = next_tag();
      const bool is_last = tag == std::string::npos;
      const char sign = !is_last && tag + 2 < source_.size() ? source_[tag + 2] : '\0';
      add_text(at_, is_last ? source_.size() : tag, is_last ? '\0' : source_[tag + 1], sign);
      if (is_last) break;
      line_ += static_cast<int>(std::count(source_.begin() + at_, source_.begin() + tag, '\n'));
      at_ = tag + 2;
      if (sign == '-' || sign == '+') ++at_;
      lex_tag(source_[tag + 1]);
    }
    add(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  size_t next_tag() const {
    for (size_t tag = source_.find('{', at_); tag != std::string::npos; tag = source_.find('{', tag + 1)) {
      const char next = tag + 1 < source_.size() ? source_[tag + 1] : '\0';
      if (next == '%' || next == '{' || next == '#') return tag;
    }
    return std::string::npos;
  }

  void add(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }

  void add_text(size_t begin, size_t end, char tag, char sign) {
    if (sign == '-') {
      while (end > begin) {
        const size_t last = start_of_character_before(end);
        if (!is_python_space(utf8_step(std::string_view(source_).substr(last)).code_point)) break;
        end = last;
      }
    } else if (sign != '+' && tag != '{' && tag != '\0') {
      // Within this text only: a search through all that came before would be quadratic.
      const size_t newline = std::string_view(source_).substr(begin, end - begin).rfind('\n');
      const bool has_newline = newline != std::string_view::npos;
      const size_t line_start = has_newline ? begin + newline + 1 : begin;
      if ((has_newline || at_line_start_) && only_spaces(line_start, end)) end = line_start;
    }
    if (begin < end) add(TokenKind::kText, source_.substr(begin, end - begin));
  }

  size_t start_of_character_before(size_t end) const {
    size_t at = end - 1;
    while (at > 0 && (static_cast<uint8_t>(source_[at]) & 0xC0) == 0x80) --at;
    return at;
  }

  bool only_spaces(size_t begin, size_t end) const {
    while (begin < end) {
      const Utf8Step step = utf8_step(std::string_view(source_).substr(begin));
      if (!is_python_space(step.code_point)) return false;
      begin += step.size;
    }
    return true;
  }

  void lex_tag(char tag) {
    const int line = line_;
    if (tag == '#') {
      const size_t end = source_.find("#}", at_);
      if (end == std::string::npos) refuse_template(line, "the comment does not end");
      const char sign = end > at_ ? source_[end - 1] : '\0';
      line_ += static_cast<int>(std::count(source_.begin() + at_, source_.begin() + end, '\n'));
      at_ = end + 2;
      end_tag(sign, true);
      return;
    }
    const bool is_block = tag == '%';
    add(is_block ? TokenKind::kBlockBegin : TokenKind::kVariableBegin, "");
    brackets_.clear();
    while (!lex_tag_end(is_block)) {
      if (at_ == source_.size())
        refuse_template(line, is_block ? "the block does not end" : "the expression does not end");
      lex_token();
    }
  }

  // Inside brackets "}}" and "%}" end nothing.
  bool lex_tag_end(bool is_block) {
    if (!brackets_.empty()) return false;
    const std::string_view end = is_block ? "%}" : "}}";
    const std::string_view rest = std::string_view(source_).substr(at_);
    const bool has_sign = !rest.empty() && (rest[0] == '-' || (is_block && rest[0] == '+'));
    if (rest.substr(has_sign ? 1 : 0, 2) != end) return false;
    add(is_block ? TokenKind::kBlockEnd : TokenKind::kVariableEnd, "");
    at_ += has_sign ? 3 : 2;
    end_tag(has_sign ? rest[0] : '\0', is_block);
    return true;
  }

  void end_tag(char sign, bool takes_newline) {
    const size_t begin = at_;
    if (sign == '-') {
      while (at_ < source_.size()) {
        const Utf8Step step = utf8_step(std::string_view(source_).substr(at_));
        if (!is_python_space(step.code_point)) break;
        at_ += step.size;
      }
    } else if (sign != '+' && takes_newline && at_ < source_.size() && source_[at_] == '\n') {
      ++at_;
    }
    line_ += static_cast<int>(std::count(source_.begin() + begin, source_.begin() + at_, '\n'));
    at_line_start_ = at_ > begin && source_[at_ - 1] == '\n';
  }

  void lex_token() {
    const char c = source_[at_];
    if (std::isspace(static_cast<unsigned char>(c))) {
      if (c == '\n') ++line_;
      ++at_;
    } else if (is_name_start(c)) {
      const size_t begin = at_;
      while (at_ < source_.size() && is_name_part(source_[at_])) ++at_;
      add(TokenKind::kName, source_.substr(begin, at_ - begin));
    } else if (is_digit(c)) {
      lex_number();
    } else if (c == '\'' || c == '"') {
      lex_string(c);
    } else {
      lex_operator();
    }
  }

  void take_digits(std::string& number) {
    while (at_ < source_.size() && is_digit(source_[at_])) number += source_[at_++];
  }

  void lex_number() {
    std::string number;
    take_digits(number);
    const auto digit_at = [&](size_t at) { return at < source_.size() && is_digit(source_[at]); };
    bool is_float = false;
    if (at_ < source_.size() && source_[at_] == '.' && digit_at(at_ + 1)) {
      is_float = true;
      number += source_[at_++];
      take_digits(number);
    }
    if (at_ < source_.size() && (source_[at_] == 'e' || source_[at_] == 'E')) {
      const bool has_sign = at_ + 1 < source_.size() && (source_[at_ + 1] == '-' || source_[at_ + 1] == '+');
      if (digit_at(at_ + (has_sign ? 2 : 1))) {
        is_float = true;
        number.append(source_, at_, has_sign ? 2 : 1);
        at_ += has_sign ? 2 : 1;
        take_digits(number);
      }
    }
    if (at_ < source_.size() && is_name_part(source_[at_]))
      refuse_template(line_, "the number '" + number + "' goes on oddly");
    add(is_float ? TokenKind::kFloat : TokenKind::kInteger, number);
  }

  void lex_string(char quote) {
    const int line = line_;
    std::string value;
    for (++at_; at_ < source_.size() && source_[at_] != quote; ++at_) {
      if (source_[at_] == '\n') ++line_;
      if (source_[at_] != '\\') {
        value += source_[at_];
      } else if (++at_ < source_.size()) {
        lex_escape(value);
      }
    }
    if (at_ >= source_.size()) refuse_template(line, "the string does not end");
    ++at_;
    tokens_.push_back({TokenKind::kString, std::move(value), line});
  }

  // Python's escapes; an unknown one keeps its backslash.
  void lex_escape(std::string& value) {
    static constexpr std::string_view kLetters = "nrtbfav0\\'\"\n";
    static constexpr std::string_view kMeanings("\n\r\t\b\f\a\v\0\\'\"", 11);
    const char letter = source_[at_];
    const bool is_octal =
        letter >= '0' && letter <= '7' && (letter != '0' || (at_ + 1 < source_.size() && is_digit(source_[at_ + 1])));
    if (is_octal) refuse_template(line_, "octal escapes are not supported");
    const size_t known = kLetters.find(letter);
    if (letter == '\n') {
      ++line_;
    } else if (known != std::string_view::npos) {
      value += kMeanings[known];
    } else if (letter == 'x' || letter == 'u' || letter == 'U') {
      lex_code_point(value, letter == 'x' ? 2 : letter == 'u' ? 4 : 8);
    } else if (letter == 'N') {
      refuse_template(line_, "escapes by character name are not supported");
    } else {
      value += {'\\', letter};
    }
  }

  void lex_code_point(std::string& value, size_t num_digits) {
    uint32_t code_point = 0;
    for (size_t i = 1; i <= num_digits; ++i) {
      const char digit = at_ + i < source_.size() ? source_[at_ + i] : '\0';
      if (!std::isxdigit(static_cast<unsigned char>(digit)))
        refuse_template(line_, "the escape needs hexadecimal digits");
      code_point = code_point * 16 + static_cast<uint32_t>(is_digit(digit) ? digit - '0' : (digit | 0x20) - 'a' + 10);
    }
    if (code_point > 0x10FFFF || (code_point >= 0xD800 && code_point < 0xE000)) {
      refuse_template(line_, "the escape names no character");
    }
    append_utf8(value, code_point);
    at_ += num_digits;
  }

  void lex_operator() {
    const std::string_view rest = std::string_view(source_).substr(at_);
    for (const std::string_view op : kOperators) {
      if (!rest.starts_with(op)) continue;
      balance(op[0], op.size() == 1);
      add(TokenKind::kOperator, std::string(op));
      at_ += op.size();
      return;
    }
    refuse_template(line_, "unexpected character '" + std::string(rest.substr(0, utf8_size(rest))) + "'");
  }

  void balance(char bracket, bool is_single) {
    if (!is_single) return;
    if (bracket == '(' || bracket == '[' || bracket == '{') brackets_ += bracket;
    if (bracket != ')' && bracket != ']' && bracket != '}') return;
    const char open = bracket == ')' ? '(' : bracket == ']' ? '[' : '{';
    if (brackets_.empty() || brackets_.back() != open)
      refuse_template(line_, std::string("unexpected '") + bracket + "'");
    brackets_.pop_back();
  }

  const std::string source_;
  size_t at_ = 0;
  int line_ = 1;
  bool at_line_start_ = true;
  std::string brackets_;
  std::vector<Token> tokens_;
};

}  // namespace

void refuse_template(int line, const std::string& reason) {
  throw std::invalid_argument("chat template line " + std::to_string(line) + ": " + reason);
}

std::vector<Token> tokenize(std::string_view source) {
  if (source.size() > kMaxSourceBytes) refuse_template(1, "the template is too long");
  if (!is_utf8(source)) refuse_template(1, "the template is not UTF-8");
  return Lexer(source).run();
}

}  // namespace troupe::jinja
