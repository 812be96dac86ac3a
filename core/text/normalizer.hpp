// What happens to text before it is split: a list of steps, applied in order.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/text/regex.hpp"
#include "core/text/unicode.hpp"

namespace troupe {

struct Lowercase {};
// Puts `text` before a text that is not empty.
struct Prepend {
  std::string text;
};
// Replaces every match.
struct ReplaceAll {
  Regex pattern;
  std::string text;
};

using NormalizerStep = std::variant<NormalForm, Lowercase, Prepend, ReplaceAll>;

class Normalizer {
 public:
  Normalizer() = default;
  explicit Normalizer(std::vector<NormalizerStep> steps) : steps_(std::move(steps)) {}

  bool is_identity() const { return steps_.empty(); }
  // Of well-formed UTF-8. Throws std::runtime_error when a pattern exceeds its match limit.
  std::string normalize(std::string_view text) const;

 private:
  std::vector<NormalizerStep> steps_;
};

}  // namespace troupe
