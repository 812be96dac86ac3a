#include "core/text/template_expressions.hpp"

#include <charconv>

#include "core/text/template_filters.hpp"

namespace troupe::jinja {
namespace {

// One method per level of precedence, loosest first.
class ExpressionParser {
 public:
  explicit ExpressionParser(TokenStream& tokens) : tokens_(tokens) {}

  ExpressionPtr parse_tuple(bool with_condition) {
    ExpressionPtr first = with_condition ? parse_expression() : parse_or();
    if (!tokens_.is_operator(",")) return first;
    auto tuple = make(Kind::kTuple, first->line);
    add(*tuple, std::move(first));
    while (tokens_.take_operator(",")) {
      const bool is_end = tokens_.peek().kind == TokenKind::kVariableEnd ||
                          tokens_.peek().kind == TokenKind::kBlockEnd || tokens_.is_operator(")");
      if (is_end) break;
      add(*tuple, with_condition ? parse_expression() : parse_or());
    }
    return tuple;
  }

  ExpressionPtr parse_expression() {
    const TokenStream::Nesting nesting(tokens_);
    ExpressionPtr value = parse_or();
    while (tokens_.is_name("if")) {
      const int line = tokens_.next().line;
      ExpressionPtr condition = parse_or();
      ExpressionPtr otherwise = tokens_.take_name("else") ? parse_expression() : nullptr;
      value = node(Kind::kConditional, line, "", std::move(value), std::move(condition), std::move(otherwise));
    }
    return value;
  }

 private:
  using Kind = ExpressionKind;

  std::unique_ptr<Expression> make(Kind kind, int line) const {
    auto expression = std::make_unique<Expression>();
    expression->kind = kind;
    expression->line = line;
    return expression;
  }

  void add(Expression& parent, ExpressionPtr operand) const {
    if (operand != nullptr) parent.depth = std::max(parent.depth, operand->depth + 1);
    if (parent.depth > kMaxTreeDepth) refuse_template(parent.line, "the expression nests too deeply");
    parent.operands.push_back(std::move(operand));
  }

  template <typename... Operands>
  ExpressionPtr node(Kind kind, int line, std::string name, Operands... operands) const {
    auto expression = make(kind, line);
    expression->name = std::move(name);
    (add(*expression, std::move(operands)), ...);
    return expression;
  }

  ExpressionPtr parse_or() {
    ExpressionPtr left = parse_and();
    while (tokens_.is_name("or")) {
      const int line = tokens_.next().line;
      left = node(Kind::kOr, line, "", std::move(left), parse_and());
    }
    return left;
  }

  ExpressionPtr parse_and() {
    ExpressionPtr left = parse_not();
    while (tokens_.is_name("and")) {
      const int line = tokens_.next().line;
      left = node(Kind::kAnd, line, "", std::move(left), parse_not());
    }
    return left;
  }

  ExpressionPtr parse_not() {
    if (!tokens_.is_name("not")) return parse_compare();
    const TokenStream::Nesting nesting(tokens_);
    const int line = tokens_.next().line;
    return node(Kind::kNot, line, "", parse_not());
  }

  // The comparison at hand, "" if there is none.
  std::string take_comparison() {
    for (const std::string_view op : {"==", "!=", "<", ">", "<=", ">="}) {
      if (tokens_.take_operator(op)) return std::string(op);
    }
    if (tokens_.take_name("in")) return "in";
    if (tokens_.is_name("not") && tokens_.peek(1).kind == TokenKind::kName && tokens_.peek(1).text == "in") {
      tokens_.next();
      tokens_.next();
      return "not in";
    }
    return {};
  }

  ExpressionPtr parse_compare() {
    ExpressionPtr first = parse_sum();
    const int line = tokens_.peek().line;
    std::string op = take_comparison();
    if (op.empty()) return first;
    auto chain = make(Kind::kCompare, line);
    add(*chain, std::move(first));
    for (; !op.empty(); op = take_comparison()) {
      chain->operators.push_back(op);
      add(*chain, parse_sum());
    }
    return chain;
  }

  ExpressionPtr parse_sum() {
    ExpressionPtr left = parse_concatenation();
    while (tokens_.is_operator("+") || tokens_.is_operator("-")) {
      const Token op = tokens_.next();
      left = node(Kind::kBinary, op.line, op.text, std::move(left), parse_concatenation());
    }
    return left;
  }

  ExpressionPtr parse_concatenation() {
    ExpressionPtr left = parse_product();
    while (tokens_.is_operator("~")) {
      const int line = tokens_.next().line;
      left = node(Kind::kConcatenate, line, "", std::move(left), parse_product());
    }
    return left;
  }

  ExpressionPtr parse_product() {
    ExpressionPtr left = parse_power();
    while (tokens_.is_operator("*") || tokens_.is_operator("/") || tokens_.is_operator("//") ||
           tokens_.is_operator("%")) {
      const Token op = tokens_.next();
      left = node(Kind::kBinary, op.line, op.text, std::move(left), parse_power());
    }
    return left;
  }

  ExpressionPtr parse_power() {
    ExpressionPtr left = parse_unary(true);
    while (tokens_.is_operator("**")) {
      const int line = tokens_.next().line;
      left = node(Kind::kBinary, line, "**", std::move(left), parse_unary(true));
    }
    return left;
  }

  // A filter binds to the whole "-x", an attribute to the x in it.
  ExpressionPtr parse_unary(bool with_filters) {
    const TokenStream::Nesting nesting(tokens_);
    ExpressionPtr value;
    const int line = tokens_.peek().line;
    if (tokens_.take_operator("-")) {
      value = node(Kind::kNegate, line, "", parse_unary(false));
    } else if (tokens_.take_operator("+")) {
      value = parse_unary(false);
    } else {
      value = parse_primary();
    }
    value = parse_postfix(std::move(value));
    return with_filters ? parse_filters(std::move(value)) : std::move(value);
  }

  ExpressionPtr literal(int line, Value value) const {
    auto expression = make(Kind::kLiteral, line);
    expression->literal = std::move(value);
    return expression;
  }

  ExpressionPtr parse_primary() {
    const Token token = tokens_.next();
    switch (token.kind) {
      case TokenKind::kName:
        if (token.text == "true" || token.text == "True") return literal(token.line, Value::of(true));
        if (token.text == "false" || token.text == "False") return literal(token.line, Value::of(false));
        if (token.text == "none" || token.text == "None") return literal(token.line, Value());
        return node(Kind::kName, token.line, token.text);
      case TokenKind::kString: {
        std::string text = token.text;
        while (tokens_.peek().kind == TokenKind::kString) text += tokens_.next().text;
        return literal(token.line, Value::of(std::move(text)));
      }
      case TokenKind::kInteger:
        return literal(token.line, Value::of(parse_number<int64_t>(token)));
      case TokenKind::kFloat:
        return literal(token.line, Value(parse_number<double>(token)));
      case TokenKind::kOperator:
        if (token.text == "(") return parse_parentheses(token.line);
        if (token.text == "[") return parse_items(token.line);
        if (token.text == "{") return parse_dict(token.line);
        break;
      default:
        break;
    }
    refuse_template(token.line, token.text.empty() ? "an expression is missing" : "unexpected '" + token.text + "'");
  }

  template <typename Number>
  Number parse_number(const Token& token) const {
    Number number{};
    const char* end = token.text.data() + token.text.size();
    const auto result = std::from_chars(token.text.data(), end, number);
    if (result.ec != std::errc() || result.ptr != end)
      refuse_template(token.line, "the number " + token.text + " is too large");
    return number;
  }

  ExpressionPtr parse_parentheses(int line) {
    if (tokens_.take_operator(")")) return make(Kind::kTuple, line);
    ExpressionPtr value = parse_tuple(true);
    tokens_.expect_operator(")");
    return value;
  }

  ExpressionPtr parse_items(int line) {
    auto list = make(Kind::kList, line);
    while (!tokens_.take_operator("]")) {
      if (!list->operands.empty()) tokens_.expect_operator(",");
      if (tokens_.take_operator("]")) break;
      add(*list, parse_expression());
    }
    return list;
  }

  ExpressionPtr parse_dict(int line) {
    auto dict = make(Kind::kDict, line);
    while (!tokens_.take_operator("}")) {
      if (!dict->operands.empty()) tokens_.expect_operator(",");
      if (tokens_.take_operator("}")) break;
      add(*dict, parse_expression());
      tokens_.expect_operator(":");
      add(*dict, parse_expression());
    }
    return dict;
  }

  ExpressionPtr parse_postfix(ExpressionPtr value) {
    while (true) {
      const int line = tokens_.peek().line;
      if (tokens_.take_operator(".")) {
        if (tokens_.peek().kind == TokenKind::kInteger) {
          const Token index = tokens_.next();
          value = node(Kind::kItem, line, "", std::move(value), literal(line, Value::of(parse_number<int64_t>(index))));
        } else {
          std::string name = tokens_.expect_name();
          value = node(Kind::kAttribute, line, std::move(name), std::move(value));
        }
      } else if (tokens_.take_operator("[")) {
        value = parse_subscript(std::move(value), line);
      } else if (tokens_.take_operator("(")) {
        value = parse_call(std::move(value), line);
      } else {
        return value;
      }
    }
  }

  ExpressionPtr parse_subscript(ExpressionPtr object, int line) {
    ExpressionPtr start = tokens_.is_operator(":") ? nullptr : parse_expression();
    if (tokens_.take_operator("]")) return node(Kind::kItem, line, "", std::move(object), std::move(start));
    ExpressionPtr bounds[2];
    for (ExpressionPtr& bound : bounds) {
      if (tokens_.is_operator("]")) break;
      tokens_.expect_operator(":");
      if (!tokens_.is_operator(":") && !tokens_.is_operator("]")) bound = parse_expression();
    }
    tokens_.expect_operator("]");
    return node(Kind::kSlice, line, "", std::move(object), std::move(start), std::move(bounds[0]),
                std::move(bounds[1]));
  }

  void parse_arguments(Expression& call) {
    bool is_first = true;
    while (!tokens_.take_operator(")")) {
      if (!is_first) tokens_.expect_operator(",");
      if (tokens_.take_operator(")")) break;
      is_first = false;
      if (tokens_.is_operator("*") || tokens_.is_operator("**"))
        tokens_.fail("arguments unpacked by '" + tokens_.peek().text + "' are not supported");
      const bool is_named = tokens_.peek().kind == TokenKind::kName && tokens_.peek(1).kind == TokenKind::kOperator &&
                            tokens_.peek(1).text == "=";
      if (!is_named) {
        if (!call.named.empty()) tokens_.fail("an argument follows a named one");
        add(call, parse_expression());
        continue;
      }
      std::string name = tokens_.next().text;
      tokens_.next();
      ExpressionPtr value = parse_expression();
      call.depth = std::max(call.depth, value->depth + 1);
      call.named.emplace_back(std::move(name), std::move(value));
    }
  }

  ExpressionPtr parse_call(ExpressionPtr callee, int line) {
    auto call = make(Kind::kCall, line);
    add(*call, std::move(callee));
    parse_arguments(*call);
    return call;
  }

  ExpressionPtr parse_filters(ExpressionPtr value) {
    while (true) {
      const int line = tokens_.peek().line;
      if (tokens_.take_operator("|")) {
        auto filter = make(Kind::kFilter, line);
        filter->name = tokens_.expect_name();
        if (!is_filter(filter->name)) refuse_template(line, "the filter '" + filter->name + "' is not supported");
        add(*filter, std::move(value));
        if (tokens_.take_operator("(")) parse_arguments(*filter);
        value = std::move(filter);
      } else if (tokens_.take_name("is")) {
        value = parse_test(std::move(value), line);
      } else if (tokens_.take_operator("(")) {
        value = parse_call(std::move(value), line);
      } else {
        return value;
      }
    }
  }

  // The argument of a test may stand without parentheses: "x is divisibleby 3".
  bool begins_bare_argument() const {
    switch (tokens_.peek().kind) {
      case TokenKind::kName: {
        static constexpr std::string_view kKeywords[] = {"else", "or", "and", "if", "in", "not", "is"};
        return std::find(std::begin(kKeywords), std::end(kKeywords), tokens_.peek().text) == std::end(kKeywords);
      }
      case TokenKind::kString:
      case TokenKind::kInteger:
      case TokenKind::kFloat:
        return true;
      default:
        return tokens_.is_operator("[") || tokens_.is_operator("{");
    }
  }

  ExpressionPtr parse_test(ExpressionPtr value, int line) {
    const bool negated = tokens_.take_name("not");
    auto test = make(Kind::kTest, line);
    test->name = tokens_.expect_name();
    if (!is_test(test->name)) refuse_template(line, "the test '" + test->name + "' is not supported");
    add(*test, std::move(value));
    if (tokens_.take_operator("(")) {
      parse_arguments(*test);
    } else if (begins_bare_argument()) {
      ExpressionPtr argument = parse_primary();
      add(*test, parse_postfix(std::move(argument)));
    }
    return negated ? node(Kind::kNot, line, "", ExpressionPtr(std::move(test))) : ExpressionPtr(std::move(test));
  }

  TokenStream& tokens_;
};

}  // namespace

ExpressionPtr parse_expression(TokenStream& tokens) {
  return ExpressionParser(tokens).parse_expression();
}
ExpressionPtr parse_tuple(TokenStream& tokens, bool with_condition) {
  return ExpressionParser(tokens).parse_tuple(with_condition);
}

}  // namespace troupe::jinja
