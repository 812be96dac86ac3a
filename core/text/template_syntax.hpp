// The syntax tree of a chat template. Internal to the template files of core/text.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/text/template_value.hpp"

namespace troupe::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<const Expression>;

// What `operands` hold is said beside each kind.
enum class ExpressionKind {
  kLiteral,      // - (literal)
  kName,         // - (name)
  kList,         // items
  kTuple,        // items
  kDict,         // key, value, key, value, ...
  kAttribute,    // object (name)
  kItem,         // object, key
  kSlice,        // object, start, stop, step; absent ones are null
  kCall,         // callee, arguments... (named)
  kFilter,       // input, arguments... (name, named)
  kTest,         // input, arguments... (name)
  kNegate,       // operand
  kNot,          // operand
  kAnd,          // left, right
  kOr,           // left, right
  kBinary,       // left, right (name = + - * / // % **)
  kConcatenate,  // left, right
  kCompare,      // first, second, third, ... (operators, one between each two)
  kConditional,  // then, condition, else or null
};

struct Expression {
  ExpressionKind kind;
  int line = 0;
  int depth = 1;
  std::string name;
  Value literal;
  std::vector<ExpressionPtr> operands;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  std::vector<std::string> operators;
};

struct Statement;
using StatementPtr = std::unique_ptr<const Statement>;
using Block = std::vector<StatementPtr>;

struct Statement {
  explicit Statement(int line) : line(line) {}
  virtual ~Statement() = default;
  const int line;
};

struct TextStatement : Statement {
  using Statement::Statement;
  std::string text;
};
struct OutputStatement : Statement {
  using Statement::Statement;
  ExpressionPtr value;
};
struct IfStatement : Statement {
  using Statement::Statement;
  std::vector<std::pair<ExpressionPtr, Block>> branches;  // if, elif, ...
  Block otherwise;
};
struct ForStatement : Statement {
  using Statement::Statement;
  std::vector<std::string> targets;  // more than one: each item is unpacked
  ExpressionPtr items;
  ExpressionPtr condition;  // may be null
  Block body;
  Block otherwise;
};
struct SetStatement : Statement {
  using Statement::Statement;
  std::vector<std::string> targets;  // more than one: the value is unpacked
  std::string attribute;             // of a namespace; empty = a plain variable
  ExpressionPtr value;               // null: the text that the body writes
  Block body;
};
struct MacroStatement : Statement {
  using Statement::Statement;
  std::string name;
  std::vector<std::pair<std::string, ExpressionPtr>> parameters;  // with their defaults, null = none
  Block body;
};
struct LoopControl : Statement {
  using Statement::Statement;
  bool is_break = false;
};
// {% generation %} only marks its text for training tools; here it is its body.
struct GenerationStatement : Statement {
  using Statement::Statement;
  Block body;
};

}  // namespace troupe::jinja
