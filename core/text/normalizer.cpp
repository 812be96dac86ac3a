#include "core/text/normalizer.hpp"

namespace troupe {
namespace {

std::string replace_all(const ReplaceAll& step, const std::string& text) {
  std::string replaced;
  size_t copied = 0;
  size_t from = 0;
  Span match{};
  while (from <= text.size() && step.pattern.find(text, from, match)) {
    replaced.append(text, copied, match.begin - copied);
    replaced += step.text;
    copied = match.end;
    if (match.end > match.begin) {
      from = match.end;
    } else if (match.end < text.size()) {
      from = match.end + utf8_size(std::string_view(text).substr(match.end));
    } else {
      break;
    }
  }
  replaced.append(text, copied);
  return replaced;
}

struct Apply {
  const std::string& text;
  std::string operator()(NormalForm form) const { return to_normal_form(text, form); }
  std::string operator()(const Lowercase&) const { return to_lower(text); }
  std::string operator()(const Prepend& prepend) const { return text.empty() ? text : prepend.text + text; }
  std::string operator()(const ReplaceAll& step) const { return replace_all(step, text); }
};

}  // namespace

std::string Normalizer::normalize(std::string_view text) const {
  std::string normal(text);
  for (const NormalizerStep& step : steps_) normal = std::visit(Apply{normal}, step);
  return normal;
}

}  // namespace troupe
