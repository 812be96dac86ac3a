// Runs a parsed chat template. Internal to the template files of core/text.
#pragma once

#include <ctime>
#include <functional>
#include <map>
#include <string>

#include "core/text/template_syntax.hpp"

namespace troupe::jinja {

struct Limits {
  uint64_t max_steps;
  size_t max_text_bytes;
  size_t max_depth;
};

// Throws std::runtime_error ("chat template line 3: ...") when the template raises, fails or exceeds a limit.
Text run(const Block& program, std::map<std::string, Value> variables, const Limits& limits,
         const std::function<std::tm()>& now);

}  // namespace troupe::jinja
