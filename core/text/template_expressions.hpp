// Parses the expressions of a chat template. Internal to the template files of core/text.
#pragma once

#include "core/text/template_syntax.hpp"
#include "core/text/template_tokens.hpp"

namespace troupe::jinja {

// Each reads one expression and leaves the tokens after it. They throw std::invalid_argument naming the line.

ExpressionPtr parse_expression(TokenStream& tokens);
// a, b, c without parentheses is a tuple. Without `with_condition` an "if" ends the expression, as in a for statement.
ExpressionPtr parse_tuple(TokenStream& tokens, bool with_condition = true);

}  // namespace troupe::jinja
