// Rules that look at the response alone: its form, its words, its length.
#include <algorithm>

#include "core/rewards/extraction.hpp"
#include "core/rewards/overlong.hpp"
#include "core/rewards/pattern.hpp"
#include "core/rewards/rule_kinds.hpp"

namespace troupe {
namespace {

// 1 when the whole response matches, else 0.
struct FormatSettings {
  Required<std::string> pattern;
  bool ignore_case = false;
  bool dot_matches_newline = true;
  static constexpr std::tuple kFields{Field{"pattern", &FormatSettings::pattern},
                                      Field{"ignore_case", &FormatSettings::ignore_case},
                                      Field{"dot_matches_newline", &FormatSettings::dot_matches_newline}};
};
TROUPE_FIELDS_COMPLETE(FormatSettings);

// 1 when the pattern is found in the response, else 0. With group > 0: when that group of the last match, trimmed, is
// the expected answer.
struct RegexSettings {
  Required<std::string> pattern;
  bool ignore_case = false;
  bool dot_matches_newline = true;
  int64_t group = 0;
  static constexpr std::tuple kFields{
      Field{"pattern", &RegexSettings::pattern}, Field{"ignore_case", &RegexSettings::ignore_case},
      Field{"dot_matches_newline", &RegexSettings::dot_matches_newline}, Field{"group", &RegexSettings::group}};
};
TROUPE_FIELDS_COMPLETE(RegexSettings);

// The share of <tag> and </tag> that occur exactly once each; without `partial` 1 or 0.
struct TagsSettings {
  std::vector<std::string> tags = {"think", "answer"};
  bool partial = true;
  static constexpr std::tuple kFields{Field{"tags", &TagsSettings::tags}, Field{"partial", &TagsSettings::partial}};
};
TROUPE_FIELDS_COMPLETE(TagsSettings);

enum class Quantifier { kAny, kAll, kNone };

// 1 when any, all or none of the texts occur in the response, else 0.
struct ContainsSettings {
  Required<std::vector<std::string>> texts;
  Quantifier require = Quantifier::kAny;
  bool ignore_case = false;  // of ASCII letters
  static constexpr std::tuple kFields{Field{"texts", &ContainsSettings::texts},
                                      Field{"require", &ContainsSettings::require},
                                      Field{"ignore_case", &ContainsSettings::ignore_case}};
};
TROUPE_FIELDS_COMPLETE(ContainsSettings);

enum class Preferred { kLong, kShort };

// Linear in the response's tokens: 0 at min_tokens or fewer, 1 at max_tokens or more; "short": 1 minus that.
struct LengthSettings {
  int64_t min_tokens = 0;
  Required<int64_t> max_tokens;
  Preferred prefer = Preferred::kShort;
  static constexpr std::tuple kFields{Field{"min_tokens", &LengthSettings::min_tokens},
                                      Field{"max_tokens", &LengthSettings::max_tokens},
                                      Field{"prefer", &LengthSettings::prefer}};
};
TROUPE_FIELDS_COMPLETE(LengthSettings);

// soft_overlong_punishment(), in [-1, 0].
struct OverlongSettings {
  int64_t max_tokens = 0;  // 0: the request's max_new_tokens
  Required<int64_t> buffer_tokens;
  static constexpr std::tuple kFields{Field{"max_tokens", &OverlongSettings::max_tokens},
                                      Field{"buffer_tokens", &OverlongSettings::buffer_tokens}};
};
TROUPE_FIELDS_COMPLETE(OverlongSettings);

Pattern compiled(const std::string& pattern, PatternOptions options, const JsonPath& where) {
  try {
    return Pattern(pattern, options);
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument(where.key("pattern").prefix() + error.what());
  }
}

[[noreturn]] void refuse(const JsonPath& where, const char* key, const std::string& why) {
  throw std::invalid_argument(where.key(key).prefix() + why);
}

std::string lower_ascii(std::string text) {
  for (char& c : text)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return text;
}

int64_t counted_tokens(const ScoredSample& sample) {
  if (sample.num_tokens < 0) throw std::runtime_error("the response's number of tokens is negative");
  return sample.num_tokens;
}

}  // namespace

template <>
struct EnumNames<Quantifier> {
  static constexpr std::array kNames{std::pair<std::string_view, Quantifier>{"any", Quantifier::kAny},
                                     std::pair<std::string_view, Quantifier>{"all", Quantifier::kAll},
                                     std::pair<std::string_view, Quantifier>{"none", Quantifier::kNone}};
};
template <>
struct EnumNames<Preferred> {
  static constexpr std::array kNames{std::pair<std::string_view, Preferred>{"long", Preferred::kLong},
                                     std::pair<std::string_view, Preferred>{"short", Preferred::kShort}};
};

Rule make_format_rule(const Json& settings, const JsonPath& where) {
  const auto s = rule_settings<FormatSettings>(settings, where);
  return [pattern = compiled(*s.pattern, {s.ignore_case, s.dot_matches_newline}, where)](const ScoredSample& sample) {
    return pattern.matches(sample.response) ? 1.0 : 0.0;
  };
}

Rule make_regex_rule(const Json& settings, const JsonPath& where) {
  const auto s = rule_settings<RegexSettings>(settings, where);
  Pattern pattern = compiled(*s.pattern, {s.ignore_case, s.dot_matches_newline}, where);
  if (s.group < 0 || s.group > pattern.num_groups())
    refuse(where, "group", "expected 0 to " + std::to_string(pattern.num_groups()) + ", the pattern's groups");
  return [pattern = std::move(pattern), group = static_cast<std::size_t>(s.group)](const ScoredSample& sample) {
    const std::vector<std::string_view> found = pattern.find(sample.response, group > 0);
    if (group == 0) return found.empty() ? 0.0 : 1.0;
    if (trimmed(sample.answer).empty()) throw std::runtime_error("the sample has no expected answer");
    return !found.empty() && trimmed(found[group]) == trimmed(sample.answer) ? 1.0 : 0.0;
  };
}

Rule make_tags_rule(const Json& settings, const JsonPath& where) {
  const auto s = rule_settings<TagsSettings>(settings, where);
  if (s.tags.empty()) refuse(where, "tags", "expected at least one tag");
  for (const std::string& tag : s.tags)
    if (tag.empty() || tag.find_first_of("<>/") != std::string::npos)
      refuse(where, "tags", "expected names without < > /, found \"" + tag + "\"");
  return [s](const ScoredSample& sample) {
    int64_t once = 0;
    for (const std::string& tag : s.tags) {
      once += occurrences(sample.response, "<" + tag + ">") == 1;
      once += occurrences(sample.response, "</" + tag + ">") == 1;
    }
    const auto wanted = static_cast<int64_t>(2 * s.tags.size());
    if (!s.partial) return once == wanted ? 1.0 : 0.0;
    return static_cast<double>(once) / static_cast<double>(wanted);
  };
}

Rule make_contains_rule(const Json& settings, const JsonPath& where) {
  auto s = rule_settings<ContainsSettings>(settings, where);
  if (s.texts->empty()) refuse(where, "texts", "expected at least one text");
  for (std::string& text : *s.texts) {
    if (text.empty()) refuse(where, "texts", "an empty text occurs everywhere");
    if (s.ignore_case) text = lower_ascii(text);
  }
  return [s](const ScoredSample& sample) {
    const std::string response = s.ignore_case ? lower_ascii(sample.response) : sample.response;
    const auto occurs = [&](const std::string& text) { return response.find(text) != std::string::npos; };
    const auto& texts = *s.texts;
    switch (s.require) {
      case Quantifier::kAny:
        return std::any_of(texts.begin(), texts.end(), occurs) ? 1.0 : 0.0;
      case Quantifier::kAll:
        return std::all_of(texts.begin(), texts.end(), occurs) ? 1.0 : 0.0;
      case Quantifier::kNone:
        return std::none_of(texts.begin(), texts.end(), occurs) ? 1.0 : 0.0;
    }
    throw std::logic_error("a quantifier without meaning");
  };
}

Rule make_length_rule(const Json& settings, const JsonPath& where) {
  const auto s = rule_settings<LengthSettings>(settings, where);
  if (s.min_tokens < 0) refuse(where, "min_tokens", "expected 0 or more");
  if (*s.max_tokens <= s.min_tokens) refuse(where, "max_tokens", "expected more than min_tokens");
  return [s](const ScoredSample& sample) {
    const auto above = static_cast<double>(counted_tokens(sample) - s.min_tokens);
    const double share = std::clamp(above / static_cast<double>(*s.max_tokens - s.min_tokens), 0.0, 1.0);
    return s.prefer == Preferred::kLong ? share : 1 - share;
  };
}

Rule make_overlong_rule(const Json& settings, const JsonPath& where) {
  const auto s = rule_settings<OverlongSettings>(settings, where);
  if (s.max_tokens < 0) refuse(where, "max_tokens", "expected 0 (the request's limit) or more");
  if (*s.buffer_tokens < 1 || (s.max_tokens > 0 && *s.buffer_tokens > s.max_tokens))
    refuse(where, "buffer_tokens", "expected 1 to max_tokens");
  return [s](const ScoredSample& sample) {
    const int64_t max_tokens = s.max_tokens > 0 ? s.max_tokens : sample.max_new_tokens;
    if (max_tokens < *s.buffer_tokens)
      throw std::runtime_error("max_new_tokens is " + std::to_string(max_tokens) + ", less than buffer_tokens");
    return soft_overlong_punishment(counted_tokens(sample), max_tokens, *s.buffer_tokens);
  };
}

}  // namespace troupe
