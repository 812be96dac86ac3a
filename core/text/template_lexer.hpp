// Cuts a chat template into tokens, with Jinja's white-space control as transformers sets it: trim_blocks (the newline
// after a block or comment goes), lstrip_blocks (blanks before a block or comment that begins a line go), "-" and "+"
// markers, and one newline at the end of the source goes. Internal to the template files of core/text.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace troupe::jinja {

enum class TokenKind {
  kText,           // between tags
  kBlockBegin,     // {%
  kBlockEnd,       // %}
  kVariableBegin,  // {{
  kVariableEnd,    // }}
  kName,
  kString,  // its value, escapes undone
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind;
  std::string text;
  int line;
};

// Throws std::invalid_argument naming the line.
std::vector<Token> tokenize(std::string_view source);

[[noreturn]] void refuse_template(int line, const std::string& reason);

}  // namespace troupe::jinja
