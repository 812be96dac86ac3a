#include "core/text/template_operators.hpp"

#include <algorithm>
#include <cmath>

#include "core/text/template_filters.hpp"

namespace troupe::jinja {
namespace {

Value checked(bool overflows, const int64_t& number) {
  if (overflows) throw TemplateError("an int overflows");
  return Value::of(number);
}

Value integer_arithmetic(char op, bool is_floor, int64_t left, int64_t right) {
  int64_t result = 0;
  switch (op) {
    case '+':
      return checked(__builtin_add_overflow(left, right, &result), result);
    case '-':
      return checked(__builtin_sub_overflow(left, right, &result), result);
    case '*':
      return checked(__builtin_mul_overflow(left, right, &result), result);
    default:
      break;
  }
  if (right == 0) throw TemplateError("division by zero");
  if (op == '/' && !is_floor) return Value(static_cast<double>(left) / static_cast<double>(right));
  if (right == -1)
    return op == '%' ? Value::of(int64_t{0}) : checked(__builtin_sub_overflow(int64_t{0}, left, &result), result);
  const int64_t remainder = left % right;
  const bool rounds_down = remainder != 0 && (remainder < 0) != (right < 0);
  if (op == '%') return Value::of(remainder + (rounds_down ? right : 0));
  return Value::of(left / right - (rounds_down ? 1 : 0));
}

Value float_arithmetic(char op, bool is_floor, double left, double right) {
  switch (op) {
    case '+':
      return Value(left + right);
    case '-':
      return Value(left - right);
    case '*':
      return Value(left * right);
    default:
      break;
  }
  if (right == 0) throw TemplateError("division by zero");
  if (op == '%') return Value(left - right * std::floor(left / right));
  return Value(is_floor ? std::floor(left / right) : left / right);
}

Value power(const Value& base, const Value& exponent) {
  if (!base.is_integer() || !exponent.is_integer() || exponent.integer() < 0) {
    return Value(std::pow(base.number(), exponent.number()));
  }
  int64_t result = 1;
  for (int64_t i = 0; i < exponent.integer() && result != 0; ++i) {
    if (__builtin_mul_overflow(result, base.integer(), &result)) throw TemplateError("an int overflows");
    if (i > 64 && (base.integer() == 1 || base.integer() == -1)) throw TemplateError("the power is too large");
  }
  return Value::of(result);
}

Value repeated(const Text& text, int64_t count, Budget& budget) {
  Text result;
  if (count <= 0 || text.empty()) return Value::of(result);
  const bool is_too_long = static_cast<uint64_t>(count) > budget.max_text_bytes() / text.size();
  budget.spend_text(is_too_long ? SIZE_MAX : text.size() * static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) result.append(text);
  return Value::of(std::move(result));
}

void refuse_undefined(const Value& operand) {
  if (!operand.is_undefined()) return;
  throw TemplateError("'" + std::get<Undefined>(operand.storage).name + "' is undefined");
}

// Python's slice.indices: a bound below or beyond the ends is moved to the end.
int64_t slice_bound(const Value& value, int64_t absent, int64_t length, int64_t low, int64_t high) {
  if (value.is_none()) return absent;
  const int64_t given = expect_integer(value, "a slice");
  return std::clamp(given < 0 ? std::max(given, -length - 1) + length : given, low, high);
}

}  // namespace

Value arithmetic(const std::string& op, const Value& left, const Value& right, Budget& budget) {
  refuse_undefined(left);
  refuse_undefined(right);
  if (left.is_number() && right.is_number()) {
    if (op == "**") return power(left, right);
    if (!left.is_integer() || !right.is_integer()) {
      return float_arithmetic(op[0], op == "//", left.number(), right.number());
    }
    return integer_arithmetic(op[0], op == "//", left.integer(), right.integer());
  }
  const bool are_texts = left.text() != nullptr && right.text() != nullptr;
  if (op == "+" && are_texts) return concatenated(*left.text(), *right.text(), budget);
  if (op == "*" && left.text() != nullptr && right.is_integer()) return repeated(*left.text(), right.integer(), budget);
  if (op == "+" && left.as_list() != nullptr && right.as_list() != nullptr) {
    std::vector<Value> items = items_of(left, budget);
    const std::vector<Value> more = items_of(right, budget);
    items.insert(items.end(), more.begin(), more.end());
    return Value::list(std::move(items), left.as_list()->is_tuple);
  }
  throw TemplateError("'" + op + "' of a " + type_name(left) + " and a " + type_name(right) + " is not supported");
}

Value negated(const Value& operand, Budget& budget) {
  if (const double* number = std::get_if<double>(&operand.storage)) return Value(-*number);
  return arithmetic("-", Value::of(int64_t{0}), operand, budget);
}

Value concatenated(Text left, const Text& right, Budget& budget) {
  budget.spend_text(left.size() + right.size());
  left.append(right);
  return Value::of(std::move(left));
}

bool holds(const std::string& op, const Value& left, const Value& right, Budget& budget) {
  const bool are_texts = left.text() != nullptr && right.text() != nullptr;
  budget.spend_text(are_texts ? std::min(left.text()->size(), right.text()->size()) : 0);
  if (op == "==") return equal(left, right);
  if (op == "!=") return !equal(left, right);
  if (op == "in") return contains(right, left, budget);
  if (op == "not in") return !contains(right, left, budget);
  const int order = compare(left, right);
  if (op == "<") return order < 0;
  if (op == "<=") return order <= 0;
  return op == ">" ? order > 0 : order >= 0;
}

Value sliced(const Value& object, const Value& start_value, const Value& stop_value, const Value& step_value,
             Budget& budget) {
  const Text* text = object.text();
  const List* list = object.as_list();
  if (text == nullptr && list == nullptr) return item_of(object, Value(), budget);
  budget.spend_text(text != nullptr ? text->size() : 0);
  const auto length = text != nullptr ? count_characters(*text) : static_cast<int64_t>(list->items.size());
  const int64_t step = step_value.is_none() ? 1 : expect_integer(step_value, "a slice");
  if (step == 0) throw TemplateError("a slice of step zero");
  const bool forward = step > 0;
  const int64_t low = forward ? 0 : -1;
  const int64_t high = forward ? length : length - 1;
  const int64_t start = slice_bound(start_value, forward ? low : high, length, low, high);
  const int64_t stop = slice_bound(stop_value, forward ? high : low, length, low, high);
  if (text != nullptr && step == 1) {
    const size_t begin = offset_of_character(*text, start);
    return Value::of(text->part(begin, start < stop ? offset_of_character(*text, stop) - begin : 0));
  }
  // A step past the ends is a step to the end.
  const int64_t stride = std::clamp(step, -length - 1, length + 1);
  const std::vector<Value> items = items_of(object, budget);
  std::vector<Value> chosen;
  for (int64_t i = start; forward ? i < stop : i > stop; i += stride) chosen.push_back(items[static_cast<size_t>(i)]);
  if (text != nullptr) return Value::of(joined(chosen, Text(), budget));
  return Value::list(std::move(chosen), list->is_tuple);
}

}  // namespace troupe::jinja
