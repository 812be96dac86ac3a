// The operators of a chat template, as Python defines them. Internal to the template files of core/text.
#pragma once

#include "core/text/template_value.hpp"

namespace troupe::jinja {

// All throw TemplateError for operands of the wrong kind, overflow and division by zero.

// + - * / // % **
Value arithmetic(const std::string& op, const Value& left, const Value& right, Budget& budget);
Value negated(const Value& operand, Budget& budget);
Value concatenated(Text left, const Text& right, Budget& budget);
// == != < <= > >= in, not in
bool holds(const std::string& op, const Value& left, const Value& right, Budget& budget);
// object[start:stop:step]; none stands for an absent bound.
Value sliced(const Value& object, const Value& start, const Value& stop, const Value& step, Budget& budget);

}  // namespace troupe::jinja
