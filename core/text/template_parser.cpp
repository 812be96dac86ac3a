#include "core/text/template_parser.hpp"

#include <algorithm>
#include <initializer_list>

#include "core/text/template_expressions.hpp"

namespace troupe::jinja {
namespace {

class StatementParser {
 public:
  explicit StatementParser(TokenStream& tokens) : tokens_(tokens) {}

  Block parse_all() {
    Block block = parse_block({});
    if (tokens_.peek().kind != TokenKind::kEnd) tokens_.fail("unexpected '" + tokens_.peek().text + "'");
    return block;
  }

 private:
  Block parse_block(std::initializer_list<std::string_view> ends) {
    const TokenStream::Nesting nesting(tokens_);
    Block block;
    while (tokens_.peek().kind != TokenKind::kEnd) {
      if (tokens_.peek().kind == TokenKind::kText) {
        auto text = std::make_unique<TextStatement>(tokens_.peek().line);
        text->text = tokens_.next().text;
        block.push_back(std::move(text));
      } else if (tokens_.peek().kind == TokenKind::kVariableBegin) {
        auto output = std::make_unique<OutputStatement>(tokens_.next().line);
        output->value = parse_tuple(tokens_);
        tokens_.expect(TokenKind::kVariableEnd, "'}}'");
        block.push_back(std::move(output));
      } else {
        if (tokens_.peek(1).kind == TokenKind::kName &&
            std::find(ends.begin(), ends.end(), tokens_.peek(1).text) != ends.end())
          break;
        tokens_.expect(TokenKind::kBlockBegin, "'{%'");
        block.push_back(parse_statement());
      }
    }
    return block;
  }

  StatementPtr parse_statement() {
    const int line = tokens_.peek().line;
    const std::string keyword = tokens_.expect_name();
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

  void end_of_tag() { tokens_.expect(TokenKind::kBlockEnd, "'%}'"); }

  void expect_end_tag(std::string_view keyword) {
    if (tokens_.peek().kind == TokenKind::kEnd) tokens_.fail("'" + std::string(keyword) + "' is missing");
    tokens_.expect(TokenKind::kBlockBegin, "'{%'");
    if (!tokens_.take_name(keyword))
      tokens_.fail("expected '" + std::string(keyword) + "', not '" + tokens_.peek().text + "'");
    end_of_tag();
  }

  StatementPtr parse_if(int line) {
    auto statement = std::make_unique<IfStatement>(line);
    while (true) {
      ExpressionPtr condition = parse_tuple(tokens_);
      end_of_tag();
      statement->branches.emplace_back(std::move(condition), parse_block({"elif", "else", "endif"}));
      if (tokens_.peek(1).kind != TokenKind::kName || tokens_.peek(1).text != "elif") break;
      tokens_.next();
      tokens_.next();
    }
    statement->otherwise = parse_else("endif");
    return statement;
  }

  Block parse_else(std::string_view end) {
    Block block;
    if (tokens_.peek(1).kind == TokenKind::kName && tokens_.peek(1).text == "else") {
      tokens_.next();
      tokens_.next();
      end_of_tag();
      block = parse_block({end});
    }
    expect_end_tag(end);
    return block;
  }

  std::vector<std::string> parse_targets() {
    std::vector<std::string> targets;
    const bool in_parentheses = tokens_.take_operator("(");
    do {
      targets.push_back(expect_target());
    } while (tokens_.take_operator(","));
    if (in_parentheses) tokens_.expect_operator(")");
    return targets;
  }

  std::string expect_target() {
    static constexpr std::string_view kReserved[] = {"true", "false", "none", "True", "False", "None", "loop"};
    if (std::find(std::begin(kReserved), std::end(kReserved), tokens_.peek().text) != std::end(kReserved)) {
      tokens_.fail("'" + tokens_.peek().text + "' cannot be assigned");
    }
    return tokens_.expect_name();
  }

  StatementPtr parse_for(int line) {
    auto statement = std::make_unique<ForStatement>(line);
    statement->targets = parse_targets();
    if (!tokens_.take_name("in")) tokens_.fail("expected 'in', not '" + tokens_.peek().text + "'");
    statement->items = parse_tuple(tokens_, /*with_condition=*/false);
    if (tokens_.take_name("if")) statement->condition = parse_expression(tokens_);
    if (tokens_.is_name("recursive")) tokens_.fail("'recursive' loops are not supported");
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
    if (statement->targets.size() == 1 && tokens_.take_operator(".")) statement->attribute = tokens_.expect_name();
    if (tokens_.take_operator("=")) {
      statement->value = parse_tuple(tokens_);
      end_of_tag();
      return statement;
    }
    if (tokens_.is_operator("|")) tokens_.fail("'set' blocks with filters are not supported");
    end_of_tag();
    statement->body = parse_block({"endset"});
    expect_end_tag("endset");
    return statement;
  }

  StatementPtr parse_macro(int line) {
    auto statement = std::make_unique<MacroStatement>(line);
    statement->name = expect_target();
    tokens_.expect_operator("(");
    while (!tokens_.take_operator(")")) {
      if (!statement->parameters.empty()) tokens_.expect_operator(",");
      std::string name = expect_target();
      ExpressionPtr value = tokens_.take_operator("=") ? parse_expression(tokens_) : nullptr;
      if (value == nullptr && !statement->parameters.empty() && statement->parameters.back().second != nullptr) {
        tokens_.fail("a parameter without default follows one with a default");
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

  TokenStream& tokens_;
  int loops_ = 0;
};

}  // namespace

Block parse_template(std::string_view source) {
  TokenStream tokens(tokenize(source));
  return StatementParser(tokens).parse_all();
}

}  // namespace troupe::jinja
