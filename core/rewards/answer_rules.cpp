// Rules that compare the response's answer with the expected one. All give 1 or 0.
#include <algorithm>
#include <array>

#include "core/rewards/extraction.hpp"
#include "core/rewards/numbers.hpp"
#include "core/rewards/pattern.hpp"
#include "core/rewards/rule_kinds.hpp"

namespace troupe {
namespace {

enum class NumberPlace { kLast, kFirst, kAfterEquals, kTag, kBoxed };

struct NumericSettings {
  NumberPlace extract =
      NumberPlace::kLast;  // after_equals: the first one after the last '='; tag, boxed: the last inside
  std::string tag = "answer";
  double tolerance = 0;  // |x - expected| <= tolerance + relative_tolerance |expected|
  double relative_tolerance = 0;
  bool percent_is_hundredth = false;  // 50% is 0.5; otherwise the sign is passed over
  static constexpr std::tuple kFields{Field{"extract", &NumericSettings::extract}, Field{"tag", &NumericSettings::tag},
                                      Field{"tolerance", &NumericSettings::tolerance},
                                      Field{"relative_tolerance", &NumericSettings::relative_tolerance},
                                      Field{"percent_is_hundredth", &NumericSettings::percent_is_hundredth}};
};
TROUPE_FIELDS_COMPLETE(NumericSettings);

struct ChoiceSettings {
  std::string letters = "ABCD";
  std::string tag;  // not empty: only what stands inside it counts
  static constexpr std::tuple kFields{Field{"letters", &ChoiceSettings::letters}, Field{"tag", &ChoiceSettings::tag}};
};
TROUPE_FIELDS_COMPLETE(ChoiceSettings);

enum class TextPlace { kWhole, kLastLine, kTag, kBoxed };

struct ExactSettings {
  TextPlace extract = TextPlace::kWhole;
  std::string tag = "answer";
  bool ignore_case = false;               // of ASCII letters
  bool collapse_whitespace = true;        // runs of white space become one space; both ends are always trimmed
  bool ignore_final_punctuation = false;  // . , ; : ! ? at the end
  static constexpr std::tuple kFields{Field{"extract", &ExactSettings::extract}, Field{"tag", &ExactSettings::tag},
                                      Field{"ignore_case", &ExactSettings::ignore_case},
                                      Field{"collapse_whitespace", &ExactSettings::collapse_whitespace},
                                      Field{"ignore_final_punctuation", &ExactSettings::ignore_final_punctuation}};
};
TROUPE_FIELDS_COMPLETE(ExactSettings);

std::optional<Number> answered_number(const NumericSettings& s, std::string_view response) {
  std::optional<std::string_view> place = response;
  if (s.extract == NumberPlace::kAfterEquals) place = after_equals(response);
  if (s.extract == NumberPlace::kTag) place = inside_tag(response, s.tag);
  if (s.extract == NumberPlace::kBoxed) place = inside_boxed(response);
  if (!place) return std::nullopt;
  const std::vector<Number> numbers = numbers_in(*place, s.percent_is_hundredth);
  if (numbers.empty()) return std::nullopt;
  const bool first = s.extract == NumberPlace::kFirst || s.extract == NumberPlace::kAfterEquals;
  return first ? numbers.front() : numbers.back();
}

// The expected number: the whole answer, or what follows the last "####" (GSM8K).
Number expected_number(const NumericSettings& s, std::string_view answer) {
  const std::size_t marker = answer.rfind("####");
  const std::string_view text = marker == std::string_view::npos ? answer : answer.substr(marker + 4);
  const auto number = number_of(text, s.percent_is_hundredth);
  if (!number) throw std::runtime_error("the expected answer \"" + beginning(answer) + "\" is no number");
  return *number;
}

// Which letter a response chooses. In this order: boxed; the last "answer is X" or "answer: X"; a last line that is, or
// starts with, the letter ("B", "(B) Paris", "B. Paris"). A letter in running text is no choice ("A dog ...").
class ChoiceReader {
 public:
  explicit ChoiceReader(const std::string& letters)
      : letter_("[\\s\"'`*({\\[]*([" + letters + "])[\\s\"'`*)}\\].,:;!]*"),
        said_("\\b(?i:answer|choice|option)(?i:\\s+is)?\\s*[:=]?[\\s\"'`*(\\[]*([" + letters + "])(?![A-Za-z0-9'])"),
        begins_("[\\s\"'`*]*(?:[(\\[]([" + letters + "])[)\\]]|([" + letters + "])[).:])(?![A-Za-z0-9]).*") {}

  std::string_view chosen(std::string_view text) const {
    if (const auto boxed = inside_boxed(text)) {
      const auto found = alone(*boxed);
      if (!found.empty()) return found;
    }
    if (const auto said = said_.find(text, true); !said.empty()) return said[1];
    const std::string_view line = last_line(text);
    if (const auto found = alone(line); !found.empty()) return found;
    if (begins_.matches(line)) {
      const auto groups = begins_.find(line);
      return groups[1].empty() ? groups[2] : groups[1];
    }
    return {};
  }

  std::string_view alone(std::string_view text) const {
    return letter_.matches(text) ? letter_.find(text)[1] : std::string_view();
  }

 private:
  Pattern letter_, said_, begins_;
};

// A copy in the form that is compared.
std::string normalized(const ExactSettings& s, std::string_view text) {
  text = trimmed(text);
  if (s.ignore_final_punctuation) {
    const std::size_t last = text.find_last_not_of(".,;:!? \t\r\n");
    text = last == std::string_view::npos ? std::string_view() : text.substr(0, last + 1);
  }
  std::string out;
  for (const char c : text) {
    const bool space = c == ' ' || (c >= '\t' && c <= '\r');
    if (s.collapse_whitespace && space) {
      if (out.back() != ' ') out += ' ';
    } else {
      out += s.ignore_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    }
  }
  return out;
}

std::optional<std::string_view> answered_text(const ExactSettings& s, std::string_view response) {
  switch (s.extract) {
    case TextPlace::kWhole:
      return response;
    case TextPlace::kLastLine:
      return last_line(response);
    case TextPlace::kTag:
      return inside_tag(response, s.tag);
    case TextPlace::kBoxed:
      return inside_boxed(response);
  }
  return std::nullopt;
}

}  // namespace

template <>
struct EnumNames<NumberPlace> {
  static constexpr std::array kNames{
      std::pair<std::string_view, NumberPlace>{"last", NumberPlace::kLast},
      std::pair<std::string_view, NumberPlace>{"first", NumberPlace::kFirst},
      std::pair<std::string_view, NumberPlace>{"after_equals", NumberPlace::kAfterEquals},
      std::pair<std::string_view, NumberPlace>{"tag", NumberPlace::kTag},
      std::pair<std::string_view, NumberPlace>{"boxed", NumberPlace::kBoxed}};
};
template <>
struct EnumNames<TextPlace> {
  static constexpr std::array kNames{std::pair<std::string_view, TextPlace>{"whole", TextPlace::kWhole},
                                     std::pair<std::string_view, TextPlace>{"last_line", TextPlace::kLastLine},
                                     std::pair<std::string_view, TextPlace>{"tag", TextPlace::kTag},
                                     std::pair<std::string_view, TextPlace>{"boxed", TextPlace::kBoxed}};
};

Rule make_numeric_rule(const Json& settings, const JsonPath& where) {
  const auto s = rule_settings<NumericSettings>(settings, where);
  if (!(s.tolerance >= 0)) throw std::invalid_argument(where.key("tolerance").prefix() + "expected 0 or more");
  if (!(s.relative_tolerance >= 0))
    throw std::invalid_argument(where.key("relative_tolerance").prefix() + "expected 0 or more");
  return [s](const ScoredSample& sample) {
    const Number expected = expected_number(s, sample.answer);
    const auto answered = answered_number(s, sample.response);
    return answered && equal_numbers(*answered, expected, s.tolerance, s.relative_tolerance) ? 1.0 : 0.0;
  };
}

Rule make_choice_rule(const Json& settings, const JsonPath& where) {
  const auto s = rule_settings<ChoiceSettings>(settings, where);
  const bool capitals = std::all_of(s.letters.begin(), s.letters.end(), [](char c) { return c >= 'A' && c <= 'Z'; });
  if (s.letters.size() < 2 || !capitals)
    throw std::invalid_argument(where.key("letters").prefix() + "expected two or more of A to Z");
  return [reader = ChoiceReader(s.letters), tag = s.tag](const ScoredSample& sample) {
    const std::string_view expected = reader.alone(sample.answer);
    if (expected.empty())
      throw std::runtime_error("the expected answer \"" + beginning(sample.answer) + "\" is none of the letters");
    const auto place =
        tag.empty() ? std::optional<std::string_view>(sample.response) : inside_tag(sample.response, tag);
    return place && reader.chosen(*place) == expected ? 1.0 : 0.0;
  };
}

Rule make_exact_rule(const Json& settings, const JsonPath& where) {
  const auto s = rule_settings<ExactSettings>(settings, where);
  return [s](const ScoredSample& sample) {
    const std::string expected = normalized(s, sample.answer);
    if (expected.empty()) throw std::runtime_error("the sample has no expected answer");
    const auto answered = answered_text(s, sample.response);
    return answered && normalized(s, *answered) == expected ? 1.0 : 0.0;
  };
}

}  // namespace troupe
