// Parses the tokens of a chat template. Internal to the template files of core/text.
#pragma once

#include <string_view>

#include "core/text/template_syntax.hpp"

namespace troupe::jinja {

// Throws std::invalid_argument naming the line, for what is not Jinja and for what is not supported: other statements,
// filters and tests, trees too deep.
Block parse_template(std::string_view source);

}  // namespace troupe::jinja
