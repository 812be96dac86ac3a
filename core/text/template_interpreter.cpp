#include "core/text/template_interpreter.hpp"

#include <algorithm>
#include <deque>

#include "core/text/template_filters.hpp"
#include "core/text/template_operators.hpp"
#include "core/text/unicode.hpp"

namespace troupe::jinja {
namespace {

constexpr int64_t kMaxRange = 100'000;  // as Jinja's sandbox
constexpr const char* kBuiltins[] = {"namespace", "range", "dict", "raise_exception", "strftime_now"};

using Scope = std::map<std::string, Value>;

// What a loop that has ended still has; a template may have kept the loop itself.
const auto kNoItems = std::make_shared<const std::vector<Value>>();

enum class Flow { kNext, kBreak, kContinue };

class Interpreter {
 public:
  Interpreter(Scope variables, const Limits& limits, const std::function<std::tm()>& now)
      : budget_(limits.max_steps, limits.max_text_bytes), max_depth_(limits.max_depth), now_(now) {
    scopes_.push_back(std::move(variables));
    scopes_.emplace_back();
  }

  Text run(const Block& program) {
    try {
      execute(program);
    } catch (const TemplateError& error) {
      throw std::runtime_error("chat template line " + std::to_string(line_) + ": " + error.what());
    }
    return std::move(output_);
  }

 private:
  // Depth and steps of one level of evaluation.
  struct Level {
    Level(Interpreter& interpreter, int line) : interpreter_(interpreter) {
      interpreter_.line_ = line;
      if (++interpreter_.depth_ > interpreter_.max_depth_) throw TemplateError("the template nests too deeply");
      interpreter_.budget_.spend(1);
    }
    ~Level() { --interpreter_.depth_; }
    Interpreter& interpreter_;
  };

  // ---- variables

  // A macro sees its own scopes and those of the template's top level.
  const Value* find_variable(const std::string& name) const {
    for (size_t i = scopes_.size(); i-- > 0;) {
      if (i < macro_base_ && i > 1) continue;
      const auto found = scopes_[i].find(name);
      if (found != scopes_[i].end()) return &found->second;
    }
    return nullptr;
  }

  Value variable(const std::string& name) const {
    if (const Value* found = find_variable(name)) return *found;
    const bool is_builtin = std::find(std::begin(kBuiltins), std::end(kBuiltins), name) != std::end(kBuiltins);
    return is_builtin ? Value(Builtin{name}) : Value::undefined(name);
  }

  void assign(const std::vector<std::string>& targets, const Value& value) {
    if (targets.size() == 1) {
      scopes_.back()[targets[0]] = value;
      return;
    }
    const std::vector<Value> parts = items_of(value, budget_);
    if (parts.size() != targets.size()) {
      throw TemplateError("cannot unpack " + std::to_string(parts.size()) + " values into " +
                          std::to_string(targets.size()));
    }
    for (size_t i = 0; i < targets.size(); ++i) scopes_.back()[targets[i]] = parts[i];
  }

  // ---- statements

  Flow execute(const Block& block) {
    for (const StatementPtr& statement : block) {
      const Flow flow = execute(*statement);
      if (flow != Flow::kNext) return flow;
    }
    return Flow::kNext;
  }

  Flow execute(const Statement& statement) {
    const Level level(*this, statement.line);
    if (const auto* text = dynamic_cast<const TextStatement*>(&statement)) {
      write(Text::trusted(text->text));
    } else if (const auto* output = dynamic_cast<const OutputStatement*>(&statement)) {
      write(printed(evaluate(*output->value), budget_));
    } else if (const auto* choice = dynamic_cast<const IfStatement*>(&statement)) {
      return execute_if(*choice);
    } else if (const auto* loop = dynamic_cast<const ForStatement*>(&statement)) {
      execute_for(*loop);
    } else if (const auto* set = dynamic_cast<const SetStatement*>(&statement)) {
      execute_set(*set);
    } else if (const auto* macro = dynamic_cast<const MacroStatement*>(&statement)) {
      scopes_.back()[macro->name] = Value(macro);
    } else if (const auto* control = dynamic_cast<const LoopControl*>(&statement)) {
      return control->is_break ? Flow::kBreak : Flow::kContinue;
    } else if (const auto* generation = dynamic_cast<const GenerationStatement*>(&statement)) {
      return execute(generation->body);
    }
    return Flow::kNext;
  }

  void write(const Text& text) {
    budget_.spend_text(output_.size() > budget_.max_text_bytes() - text.size() ? SIZE_MAX : text.size());
    output_.append(text);
  }

  Flow execute_if(const IfStatement& statement) {
    for (const auto& [condition, body] : statement.branches) {
      if (is_true(evaluate(*condition))) return execute(body);
    }
    return execute(statement.otherwise);
  }

  std::vector<Value> chosen_items(const ForStatement& statement) {
    std::vector<Value> items = items_of(evaluate(*statement.items), budget_);
    if (statement.condition == nullptr) return items;
    std::vector<Value> chosen;
    scopes_.emplace_back();
    for (const Value& item : items) {
      assign(statement.targets, item);
      if (is_true(evaluate(*statement.condition))) chosen.push_back(item);
    }
    scopes_.pop_back();
    return chosen;
  }

  void execute_for(const ForStatement& statement) {
    loops_.push_back({std::make_shared<const std::vector<Value>>(chosen_items(statement)), 0});
    Loop& loop = loops_.back();
    for (; loop.index < loop.items->size(); ++loop.index) {
      budget_.spend(1);
      scopes_.emplace_back();
      scopes_.back()["loop"] = Value(&loop);
      assign(statement.targets, (*loop.items)[loop.index]);
      const Flow flow = execute(statement.body);
      scopes_.pop_back();
      if (flow == Flow::kBreak) break;
    }
    const bool was_empty = loop.items->empty();
    loop.items = kNoItems;
    if (!was_empty) return;
    scopes_.emplace_back();
    execute(statement.otherwise);
    scopes_.pop_back();
  }

  void execute_set(const SetStatement& statement) {
    const Value value = statement.value != nullptr ? evaluate(*statement.value) : Value::of(captured(statement.body));
    if (statement.attribute.empty()) {
      assign(statement.targets, value);
      return;
    }
    const Value target = variable(statement.targets[0]);
    Namespace* const* space = std::get_if<Namespace*>(&target.storage);
    if (space == nullptr) throw TemplateError("'" + statement.targets[0] + "' is not a namespace");
    put(**space, statement.attribute, value);
  }

  // transformers' sandbox keeps names with an underscore to itself.
  static void put(Namespace& space, const std::string& name, const Value& value) {
    if (name.starts_with('_')) throw TemplateError("a namespace takes no attribute '" + name + "'");
    space.values[name] = value;
  }

  // What the block writes, instead of writing it.
  Text captured(const Block& body) {
    Text outer = std::exchange(output_, Text());
    scopes_.emplace_back();
    execute(body);
    scopes_.pop_back();
    return std::exchange(output_, std::move(outer));
  }

  // ---- expressions

  Value evaluate(const Expression& e) {
    const Level level(*this, e.line);
    switch (e.kind) {
      case ExpressionKind::kLiteral:
        return e.literal;
      case ExpressionKind::kName:
        return variable(e.name);
      case ExpressionKind::kList:
        return Value::list(evaluate_all(e, 0));
      case ExpressionKind::kTuple:
        return Value::list(evaluate_all(e, 0), true);
      case ExpressionKind::kDict:
        return evaluate_dict(e);
      case ExpressionKind::kAttribute:
        return attribute_of(evaluate(*e.operands[0]), e.name, budget_);
      case ExpressionKind::kItem:
        return evaluate_item(e);
      case ExpressionKind::kSlice:
        return evaluate_slice(e);
      case ExpressionKind::kCall:
        return evaluate_call(e);
      case ExpressionKind::kFilter: {
        const Value input = evaluate(*e.operands[0]);
        return apply_filter(e.name, input, arguments_of(e), budget_);
      }
      case ExpressionKind::kTest: {
        const Value input = evaluate(*e.operands[0]);
        return Value::of(apply_test(e.name, input, arguments_of(e), budget_));
      }
      default:
        return evaluate_operator(e);
    }
  }

  Value evaluate_operator(const Expression& e) {
    switch (e.kind) {
      case ExpressionKind::kNot:
        return Value::of(!is_true(evaluate(*e.operands[0])));
      case ExpressionKind::kAnd: {
        const Value left = evaluate(*e.operands[0]);
        return is_true(left) ? evaluate(*e.operands[1]) : left;
      }
      case ExpressionKind::kOr: {
        const Value left = evaluate(*e.operands[0]);
        return is_true(left) ? left : evaluate(*e.operands[1]);
      }
      case ExpressionKind::kConditional:
        if (is_true(evaluate(*e.operands[1]))) return evaluate(*e.operands[0]);
        return e.operands[2] != nullptr ? evaluate(*e.operands[2]) : Value::undefined("the inline if without else");
      case ExpressionKind::kNegate:
        return negated(evaluate(*e.operands[0]), budget_);
      case ExpressionKind::kConcatenate: {
        const Value left = evaluate(*e.operands[0]);
        const Value right = evaluate(*e.operands[1]);
        return concatenated(printed(left, budget_), printed(right, budget_), budget_);
      }
      case ExpressionKind::kBinary: {
        const Value left = evaluate(*e.operands[0]);
        const Value right = evaluate(*e.operands[1]);
        line_ = e.line;
        return arithmetic(e.name, left, right, budget_);
      }
      default:
        return evaluate_comparison(e);
    }
  }

  std::vector<Value> evaluate_all(const Expression& e, size_t from) {
    std::vector<Value> values;
    for (size_t i = from; i < e.operands.size(); ++i) values.push_back(evaluate(*e.operands[i]));
    return values;
  }

  Arguments arguments_of(const Expression& e) {
    Arguments arguments{evaluate_all(e, 1), {}};
    for (const auto& [name, value] : e.named) arguments.named.emplace_back(name, evaluate(*value));
    line_ = e.line;
    return arguments;
  }

  Value evaluate_dict(const Expression& e) {
    std::vector<std::pair<Text, Value>> items;
    for (size_t i = 0; i < e.operands.size(); i += 2) {
      const Value key = evaluate(*e.operands[i]);
      put(items, expect_text(key, "a key of a dict"), evaluate(*e.operands[i + 1]));
    }
    return Value::dict(std::move(items));
  }

  void put(std::vector<std::pair<Text, Value>>& items, const Text& key, Value value) {
    budget_.spend(1 + items.size());
    const auto found =
        std::find_if(items.begin(), items.end(), [&](const auto& i) { return i.first.bytes() == key.bytes(); });
    if (found != items.end()) {
      found->second = std::move(value);
    } else {
      items.emplace_back(key, std::move(value));
    }
  }

  Value evaluate_item(const Expression& e) {
    const Value object = evaluate(*e.operands[0]);
    const Value key = evaluate(*e.operands[1]);
    line_ = e.line;
    return item_of(object, key, budget_);
  }

  Value evaluate_slice(const Expression& e) {
    const Value object = evaluate(*e.operands[0]);
    Value bounds[3];
    for (size_t i = 0; i < 3; ++i) {
      if (e.operands[i + 1] != nullptr) bounds[i] = evaluate(*e.operands[i + 1]);
    }
    line_ = e.line;
    return sliced(object, bounds[0], bounds[1], bounds[2], budget_);
  }

  Value evaluate_comparison(const Expression& e) {
    Value left = evaluate(*e.operands[0]);
    for (size_t i = 0; i < e.operators.size(); ++i) {
      Value right = evaluate(*e.operands[i + 1]);
      line_ = e.line;
      if (!holds(e.operators[i], left, right, budget_)) return Value::of(false);
      left = std::move(right);
    }
    return Value::of(true);
  }

  // ---- calls

  Value evaluate_call(const Expression& e) {
    const Value callee = evaluate(*e.operands[0]);
    const Arguments arguments = arguments_of(e);
    if (const Method* method = std::get_if<Method>(&callee.storage)) {
      return call_method(*method->self, method->name, arguments, budget_);
    }
    if (const Builtin* builtin = std::get_if<Builtin>(&callee.storage)) return call_builtin(builtin->name, arguments);
    if (const auto* macro = std::get_if<const MacroStatement*>(&callee.storage)) return call_macro(**macro, arguments);
    const Expression& target = *e.operands[0];
    if (callee.is_undefined() && target.kind == ExpressionKind::kAttribute) {
      throw TemplateError("the method '" + target.name + "' is not supported");
    }
    if (callee.is_undefined())
      throw TemplateError("the function '" + std::get<Undefined>(callee.storage).name + "' is not supported");
    throw TemplateError("a " + type_name(callee) + " cannot be called");
  }

  Value call_builtin(const std::string& name, const Arguments& arguments) {
    if (name == "range") return range(arguments);
    if (name == "raise_exception") {
      throw TemplateError(arguments.positional.empty() ? "raised" : printed(arguments.positional[0], budget_).bytes());
    }
    if (name == "strftime_now") return strftime_now(arguments);
    if (!arguments.positional.empty())
      throw TemplateError(name + "() with arguments that have no name is not supported");
    if (name == "namespace") {
      namespaces_.emplace_back();
      for (const auto& [key, value] : arguments.named) put(namespaces_.back(), key, value);
      return Value(&namespaces_.back());
    }
    std::vector<std::pair<Text, Value>> items;
    for (const auto& [key, value] : arguments.named) put(items, Text::trusted(key), value);
    return Value::dict(std::move(items));
  }

  Value range(const Arguments& arguments) {
    arguments.check("range", 3);
    const auto at = [&](size_t i) { return expect_integer(arguments.positional.at(i), "range"); };
    const size_t count = arguments.positional.size();
    if (count == 0) throw TemplateError("range() needs an end");
    const int64_t start = count == 1 ? 0 : at(0);
    const int64_t stop = count == 1 ? at(0) : at(1);
    const int64_t step = count == 3 ? at(2) : 1;
    if (step == 0) throw TemplateError("range() with a step of zero");
    constexpr int64_t kMaxBound = int64_t{1} << 60;
    if (std::max({std::abs(start / 2), std::abs(stop / 2), std::abs(step / 2)}) > kMaxBound / 2) {
      throw TemplateError("range() with bounds this large is not supported");
    }
    std::vector<Value> numbers;
    for (int64_t i = start; step > 0 ? i < stop : i > stop; i += step) {
      if (static_cast<int64_t>(numbers.size()) == kMaxRange) throw TemplateError("range() of more than 100000 numbers");
      budget_.spend(1);
      numbers.push_back(Value::of(i));
    }
    return Value::list(std::move(numbers));
  }

  Value strftime_now(const Arguments& arguments) {
    arguments.check("strftime_now", 1);
    if (arguments.positional.empty()) throw TemplateError("strftime_now() needs a format");
    const std::string& format = expect_text(arguments.positional[0], "strftime_now").bytes();
    if (format.empty()) return Value::of(Text());
    const std::tm time = now_();
    char formatted[1024];
    const size_t size = std::strftime(formatted, sizeof formatted, format.c_str(), &time);
    if (size == 0) throw TemplateError("strftime_now: the format '" + format + "' gives too much or nothing");
    return Value::of(to_valid_utf8({formatted, size}));
  }

  Value call_macro(const MacroStatement& macro, const Arguments& arguments) {
    if (arguments.positional.size() > macro.parameters.size())
      throw TemplateError(macro.name + "() takes fewer arguments");
    for (const auto& [name, value] : arguments.named) {
      const bool known =
          std::any_of(macro.parameters.begin(), macro.parameters.end(), [&](const auto& p) { return p.first == name; });
      if (!known) throw TemplateError(macro.name + "() has no parameter '" + name + "'");
    }
    const size_t outer_base = std::exchange(macro_base_, scopes_.size());
    scopes_.emplace_back();
    for (size_t i = 0; i < macro.parameters.size(); ++i) {
      const auto& [name, fallback] = macro.parameters[i];
      const Value* given = arguments.find(i, name);
      Value value = given != nullptr ? *given : fallback != nullptr ? evaluate(*fallback) : Value::undefined(name);
      scopes_.back()[name] = std::move(value);
    }
    Text text = captured(macro.body);
    scopes_.pop_back();
    macro_base_ = outer_base;
    return Value::of(std::move(text));
  }

  Budget budget_;
  const size_t max_depth_;
  const std::function<std::tm()>& now_;
  std::vector<Scope> scopes_;  // [0] the caller's variables, [1] the template's top level
  size_t macro_base_ = 0;      // scopes from here on belong to the running macro
  std::deque<Namespace> namespaces_;
  std::deque<Loop> loops_;
  Text output_;
  size_t depth_ = 0;
  int line_ = 1;
};

}  // namespace

Text run(const Block& program, std::map<std::string, Value> variables, const Limits& limits,
         const std::function<std::tm()>& now) {
  return Interpreter(std::move(variables), limits, now).run(program);
}

}  // namespace troupe::jinja
