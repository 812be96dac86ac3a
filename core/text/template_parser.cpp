#include "core/text/template_parser.hpp"

#include <algorithm>
#include <charconv>
#include <initializer_list>

#include "core/text/template_filters.hpp"
#include "core/text/template_lexer.hpp"

namespace troupe::jinja {
namespace {

constexpr int kMaxTreeDepth = 250;

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  Block parse() {
    Block block = parse_block({});
    if (peek().kind != TokenKind::kEnd) fail("unexpected '" + peek().text + "'");
    return block;
  }

 private:
  using Kind = ExpressionKind;

  // ---- tokens

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

  // Guards the parser's own recursion; the depth of left-leaning trees is counted in make().
  struct Nesting {
    explicit Nesting(Parser& parser) : parser_(parser) {
      if (++parser_.nesting_ > kMaxTreeDepth) parser_.fail("the template nests too deeply");
    }
    ~Nesting() { --parser_.nesting_; }
    Parser& parser_;
  };

  // ---- statements

  Block parse_block(std::initializer_list<std::string_view> ends) {
    const Nesting nesting(*this);
    Block block;
    while (peek().kind != TokenKind::kEnd) {
      if (peek().kind == TokenKind::kText) {
        auto text = std::make_unique<TextStatement>(peek().line);
        text->text = next().text;
        block.push_back(std::move(text));
      } else if (peek().kind == TokenKind::kVariableBegin) {
        auto output = std::make_unique<OutputStatement>(next().line);
        output->value = parse_tuple();
        expect(TokenKind::kVariableEnd, "'}}'");
        block.push_back(std::move(output));
      } else {
        if (peek(1).kind == TokenKind::kName && std::find(ends.begin(), ends.end(), peek(1).text) != ends.end()) break;
        expect(TokenKind::kBlockBegin, "'{%'");
        block.push_back(parse_statement());
      }
    }
    return block;
  }

  StatementPtr parse_statement() {
    const int line = peek().line;
    const std::string keyword = expect_name();
    if (keyword == "if") return parse_if(line);
    if (keyword == "for") return parse_for(line);
    if (keyword == "set") return parse_set(line);
    if (keyword == "macro") return parse_macro(line);
    if (keyword == "break" || keyword == "continue") {
      if (loops_ == 0) refuse_template(line, "'" + keyword + "' outside a loop");
      auto control = std::make_unique<LoopControl>(line);
      control->is_break = keyword == "break";
      end_of_tag();
      return control;
    }
    if (keyword == "generation") {
      auto generation = std::make_unique<GenerationStatement>(line);
      end_of_tag();
      generation->body = parse_block({"endgeneration"});
      expect_end_tag("endgeneration");
      return generation;
    }
    refuse_template(line, "the statement '" + keyword + "' is not supported here");
  }

  void end_of_tag() { expect(TokenKind::kBlockEnd, "'%}'"); }

  void expect_end_tag(std::string_view keyword) {
    if (peek().kind == TokenKind::kEnd) fail("'" + std::string(keyword) + "' is missing");
    expect(TokenKind::kBlockBegin, "'{%'");
    if (!take_name(keyword)) fail("expected '" + std::string(keyword) + "', not '" + peek().text + "'");
    end_of_tag();
  }

  StatementPtr parse_if(int line) {
    auto statement = std::make_unique<IfStatement>(line);
    while (true) {
      ExpressionPtr condition = parse_tuple();
      end_of_tag();
      statement->branches.emplace_back(std::move(condition), parse_block({"elif", "else", "endif"}));
      if (peek(1).kind != TokenKind::kName || peek(1).text != "elif") break;
      next();
      next();
    }
    statement->otherwise = parse_else("endif");
    return statement;
  }

  Block parse_else(std::string_view end) {
    Block block;
    if (peek(1).kind == TokenKind::kName && peek(1).text == "else") {
      next();
      next();
      end_of_tag();
      block = parse_block({end});
    }
    expect_end_tag(end);
    return block;
  }

  std::vector<std::string> parse_targets() {
    std::vector<std::string> targets;
    const bool in_parentheses = take_operator("(");
    do {
      targets.push_back(expect_target());
    } while (take_operator(","));
    if (in_parentheses) expect_operator(")");
    return targets;
  }

  std::string expect_target() {
    static constexpr std::string_view kReserved[] = {"true", "false", "none", "True", "False", "None", "loop"};
    if (std::find(std::begin(kReserved), std::end(kReserved), peek().text) != std::end(kReserved)) {
      fail("'" + peek().text + "' cannot be assigned");
    }
    return expect_name();
  }

  StatementPtr parse_for(int line) {
    auto statement = std::make_unique<ForStatement>(line);
    statement->targets = parse_targets();
    if (!take_name("in")) fail("expected 'in', not '" + peek().text + "'");
    statement->items = parse_tuple(/*with_condition=*/false);
    if (take_name("if")) statement->condition = parse_expression();
    if (is_name("recursive")) fail("'recursive' loops are not supported");
    end_of_tag();
    ++loops_;
    statement->body = parse_block({"else", "endfor"});
    --loops_;
    statement->otherwise = parse_else("endfor");
    return statement;
  }

  StatementPtr parse_set(int line) {
    auto statement = std::make_unique<SetStatement>(line);
    statement->targets = parse_targets();
    if (statement->targets.size() == 1 && take_operator(".")) statement->attribute = expect_name();
    if (take_operator("=")) {
      statement->value = parse_tuple();
      end_of_tag();
      return statement;
    }
    if (is_operator("|")) fail("'set' blocks with filters are not supported");
    end_of_tag();
    statement->body = parse_block({"endset"});
    expect_end_tag("endset");
    return statement;
  }

  StatementPtr parse_macro(int line) {
    auto statement = std::make_unique<MacroStatement>(line);
    statement->name = expect_target();
    expect_operator("(");
    while (!take_operator(")")) {
      if (!statement->parameters.empty()) expect_operator(",");
      std::string name = expect_target();
      ExpressionPtr value = take_operator("=") ? parse_expression() : nullptr;
      if (value == nullptr && !statement->parameters.empty() && statement->parameters.back().second != nullptr) {
        fail("a parameter without default follows one with a default");
      }
      statement->parameters.emplace_back(std::move(name), std::move(value));
    }
    end_of_tag();
    const int outer_loops = std::exchange(loops_, 0);
    statement->body = parse_block({"endmacro"});
    loops_ = outer_loops;
    expect_end_tag("endmacro");
    return statement;
  }

  // ---- expressions, loosest first

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

  // a, b, c without parentheses is a tuple.
  ExpressionPtr parse_tuple(bool with_condition = true) {
    ExpressionPtr first = with_condition ? parse_expression() : parse_or();
    if (!is_operator(",")) return first;
    auto tuple = make(Kind::kTuple, first->line);
    add(*tuple, std::move(first));
    while (take_operator(",")) {
      const bool is_end =
          peek().kind == TokenKind::kVariableEnd || peek().kind == TokenKind::kBlockEnd || is_operator(")");
      if (is_end) break;
      add(*tuple, with_condition ? parse_expression() : parse_or());
    }
    return tuple;
  }

  ExpressionPtr parse_expression() {
    const Nesting nesting(*this);
    ExpressionPtr value = parse_or();
    while (is_name("if")) {
      const int line = next().line;
      ExpressionPtr condition = parse_or();
      ExpressionPtr otherwise = take_name("else") ? parse_expression() : nullptr;
      value = node(Kind::kConditional, line, "", std::move(value), std::move(condition), std::move(otherwise));
    }
    return value;
  }

  ExpressionPtr parse_or() {
    ExpressionPtr left = parse_and();
    while (is_name("or")) {
      const int line = next().line;
      left = node(Kind::kOr, line, "", std::move(left), parse_and());
    }
    return left;
  }

  ExpressionPtr parse_and() {
    ExpressionPtr left = parse_not();
    while (is_name("and")) {
      const int line = next().line;
      left = node(Kind::kAnd, line, "", std::move(left), parse_not());
    }
    return left;
  }

  ExpressionPtr parse_not() {
    if (!is_name("not")) return parse_compare();
    const Nesting nesting(*this);
    const int line = next().line;
    return node(Kind::kNot, line, "", parse_not());
  }

  // The comparison at hand, "" if there is none.
  std::string take_comparison() {
    for (const std::string_view op : {"==", "!=", "<", ">", "<=", ">="}) {
      if (take_operator(op)) return std::string(op);
    }
    if (take_name("in")) return "in";
    if (is_name("not") && peek(1).kind == TokenKind::kName && peek(1).text == "in") {
      next();
      next();
      return "not in";
    }
    return {};
  }

  ExpressionPtr parse_compare() {
    ExpressionPtr first = parse_sum();
    const int line = peek().line;
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
    while (is_operator("+") || is_operator("-")) {
      const Token op = next();
      left = node(Kind::kBinary, op.line, op.text, std::move(left), parse_concatenation());
    }
    return left;
  }

  ExpressionPtr parse_concatenation() {
    ExpressionPtr left = parse_product();
    while (is_operator("~")) {
      const int line = next().line;
      left = node(Kind::kConcatenate, line, "", std::move(left), parse_product());
    }
    return left;
  }

  ExpressionPtr parse_product() {
    ExpressionPtr left = parse_power();
    while (is_operator("*") || is_operator("/") || is_operator("//") || is_operator("%")) {
      const Token op = next();
      left = node(Kind::kBinary, op.line, op.text, std::move(left), parse_power());
    }
    return left;
  }

  ExpressionPtr parse_power() {
    ExpressionPtr left = parse_unary(true);
    while (is_operator("**")) {
      const int line = next().line;
      left = node(Kind::kBinary, line, "**", std::move(left), parse_unary(true));
    }
    return left;
  }

  // A filter binds to the whole "-x", an attribute to the x in it.
  ExpressionPtr parse_unary(bool with_filters) {
    const Nesting nesting(*this);
    ExpressionPtr value;
    const int line = peek().line;
    if (take_operator("-")) {
      value = node(Kind::kNegate, line, "", parse_unary(false));
    } else if (take_operator("+")) {
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
    const Token token = next();
    switch (token.kind) {
      case TokenKind::kName:
        if (token.text == "true" || token.text == "True") return literal(token.line, Value::of(true));
        if (token.text == "false" || token.text == "False") return literal(token.line, Value::of(false));
        if (token.text == "none" || token.text == "None") return literal(token.line, Value());
        return node(Kind::kName, token.line, token.text);
      case TokenKind::kString: {
        std::string text = token.text;
        while (peek().kind == TokenKind::kString) text += next().text;
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
    if (take_operator(")")) return make(Kind::kTuple, line);
    ExpressionPtr value = parse_tuple();
    expect_operator(")");
    return value;
  }

  ExpressionPtr parse_items(int line) {
    auto list = make(Kind::kList, line);
    while (!take_operator("]")) {
      if (!list->operands.empty()) expect_operator(",");
      if (take_operator("]")) break;
      add(*list, parse_expression());
    }
    return list;
  }

  ExpressionPtr parse_dict(int line) {
    auto dict = make(Kind::kDict, line);
    while (!take_operator("}")) {
      if (!dict->operands.empty()) expect_operator(",");
      if (take_operator("}")) break;
      add(*dict, parse_expression());
      expect_operator(":");
      add(*dict, parse_expression());
    }
    return dict;
  }

  ExpressionPtr parse_postfix(ExpressionPtr value) {
    while (true) {
      const int line = peek().line;
      if (take_operator(".")) {
        if (peek().kind == TokenKind::kInteger) {
          const Token index = next();
          value = node(Kind::kItem, line, "", std::move(value), literal(line, Value::of(parse_number<int64_t>(index))));
        } else {
          std::string name = expect_name();
          value = node(Kind::kAttribute, line, std::move(name), std::move(value));
        }
      } else if (take_operator("[")) {
        value = parse_subscript(std::move(value), line);
      } else if (take_operator("(")) {
        value = parse_call(std::move(value), line);
      } else {
        return value;
      }
    }
  }

  ExpressionPtr parse_subscript(ExpressionPtr object, int line) {
    ExpressionPtr start = is_operator(":") ? nullptr : parse_expression();
    if (take_operator("]")) return node(Kind::kItem, line, "", std::move(object), std::move(start));
    ExpressionPtr bounds[2];
    for (ExpressionPtr& bound : bounds) {
      if (is_operator("]")) break;
      expect_operator(":");
      if (!is_operator(":") && !is_operator("]")) bound = parse_expression();
    }
    expect_operator("]");
    return node(Kind::kSlice, line, "", std::move(object), std::move(start), std::move(bounds[0]),
                std::move(bounds[1]));
  }

  void parse_arguments(Expression& call) {
    bool is_first = true;
    while (!take_operator(")")) {
      if (!is_first) expect_operator(",");
      if (take_operator(")")) break;
      is_first = false;
      if (is_operator("*") || is_operator("**")) fail("arguments unpacked by '" + peek().text + "' are not supported");
      const bool is_named =
          peek().kind == TokenKind::kName && peek(1).kind == TokenKind::kOperator && peek(1).text == "=";
      if (!is_named) {
        if (!call.named.empty()) fail("an argument follows a named one");
        add(call, parse_expression());
        continue;
      }
      std::string name = next().text;
      next();
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
      const int line = peek().line;
      if (take_operator("|")) {
        auto filter = make(Kind::kFilter, line);
        filter->name = expect_name();
        if (!is_filter(filter->name)) refuse_template(line, "the filter '" + filter->name + "' is not supported");
        add(*filter, std::move(value));
        if (take_operator("(")) parse_arguments(*filter);
        value = std::move(filter);
      } else if (take_name("is")) {
        value = parse_test(std::move(value), line);
      } else if (take_operator("(")) {
        value = parse_call(std::move(value), line);
      } else {
        return value;
      }
    }
  }

  // The argument of a test may stand without parentheses: "x is divisibleby 3".
  bool begins_bare_argument() const {
    switch (peek().kind) {
      case TokenKind::kName: {
        static constexpr std::string_view kKeywords[] = {"else", "or", "and", "if", "in", "not", "is"};
        return std::find(std::begin(kKeywords), std::end(kKeywords), peek().text) == std::end(kKeywords);
      }
      case TokenKind::kString:
      case TokenKind::kInteger:
      case TokenKind::kFloat:
        return true;
      default:
        return is_operator("[") || is_operator("{");
    }
  }

  ExpressionPtr parse_test(ExpressionPtr value, int line) {
    const bool negated = take_name("not");
    auto test = make(Kind::kTest, line);
    test->name = expect_name();
    if (!is_test(test->name)) refuse_template(line, "the test '" + test->name + "' is not supported");
    add(*test, std::move(value));
    if (take_operator("(")) {
      parse_arguments(*test);
    } else if (begins_bare_argument()) {
      ExpressionPtr argument = parse_primary();
      add(*test, parse_postfix(std::move(argument)));
    }
    return negated ? node(Kind::kNot, line, "", ExpressionPtr(std::move(test))) : ExpressionPtr(std::move(test));
  }

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int nesting_ = 0;
  int loops_ = 0;
};

}  // namespace

Block parse_template(std::string_view source) {
  return Parser(tokenize(source)).parse();
}

}  // namespace troupe::jinja
