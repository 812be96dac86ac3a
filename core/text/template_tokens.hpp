// A chat template's tokens as a parser reads them. Internal to the template files of core/text.
#pragma once

#include <algorithm>

#include "core/text/template_lexer.hpp"

namespace troupe::jinja {

inline constexpr int kMaxTreeDepth = 250;

class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& peek(size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
  Token next() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
  bool is_operator(std::string_view op) const { return peek().kind == TokenKind::kOperator && peek().text == op; }
  bool is_name(std::string_view name) const { return peek().kind == TokenKind::kName && peek().text == name; }
  [[noreturn]] void fail(const std::string& reason) const { refuse_template(peek().line, reason); }

  bool take_operator(std::string_view op) {
    const bool found = is_operator(op);
    if (found) next();
    return found;
  }
  bool take_name(std::string_view name) {
    const bool found = is_name(name);
    if (found) next();
    return found;
  }
  void expect_operator(std::string_view op) {
    if (!take_operator(op)) fail("expected '" + std::string(op) + "', not '" + peek().text + "'");
  }
  std::string expect_name() {
    if (peek().kind != TokenKind::kName) fail("expected a name, not '" + peek().text + "'");
    return next().text;
  }
  void expect(TokenKind kind, const char* what) {
    if (peek().kind != kind) fail(std::string("expected ") + what + ", not '" + peek().text + "'");
    next();
  }

  // One level of the parsers' recursion, which hostile sources must not make overflow the stack.
  struct Nesting {
    explicit Nesting(TokenStream& tokens) : tokens_(tokens) {
      if (++tokens_.nesting_ > kMaxTreeDepth) tokens_.fail("the template nests too deeply");
    }
    ~Nesting() { --tokens_.nesting_; }
    TokenStream& tokens_;
  };

 private:
  std::vector<Token> tokens_;  // the last one is kEnd and is never passed
  size_t at_ = 0;
  int nesting_ = 0;
};

}  // namespace troupe::jinja
