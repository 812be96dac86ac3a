// The kinds of rules a RuleSet is made of. Each is a function from a sample to a finite value, with its settings bound
// in; it throws std::runtime_error when the value cannot be computed. Adding a kind: a settings struct and a function
// in one of the *_rules.cpp files, its line here, and one in rules.cpp's table.
#pragma once

#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "core/config.hpp"
#include "core/rewards/rules.hpp"

namespace troupe {

using Rule = std::function<double(const ScoredSample&)>;

// text_rules.cpp
Rule make_format_rule(const Json& settings, const JsonPath& where);
Rule make_regex_rule(const Json& settings, const JsonPath& where);
Rule make_tags_rule(const Json& settings, const JsonPath& where);
Rule make_contains_rule(const Json& settings, const JsonPath& where);
Rule make_length_rule(const Json& settings, const JsonPath& where);
Rule make_overlong_rule(const Json& settings, const JsonPath& where);

// answer_rules.cpp: these compare with the sample's expected answer
Rule make_numeric_rule(const Json& settings, const JsonPath& where);
Rule make_choice_rule(const Json& settings, const JsonPath& where);
Rule make_exact_rule(const Json& settings, const JsonPath& where);

// The keys that every rule has beside its own.
struct RuleHead {
  Required<std::string> type;
  std::optional<std::string> name;  // of its value among the parts; the type if not given
  double weight = 1;
  static constexpr std::tuple kFields{Field{"type", &RuleHead::type}, Field{"name", &RuleHead::name},
                                      Field{"weight", &RuleHead::weight}};
};
TROUPE_FIELDS_COMPLETE(RuleHead);

// A rule's own settings from its whole object. An unknown key is told its nearest neighbour among all keys it may have.
template <Fielded Settings>
Settings rule_settings(const Json& rule, const JsonPath& where) {
  std::vector<std::string_view> known;
  for_each_field(RuleHead{}, [&](std::string_view name, const auto&) { known.push_back(name); });
  Json own = rule;
  for (const std::string_view head : known) own.erase(std::string(head));
  for_each_field(Settings{}, [&](std::string_view name, const auto&) { known.push_back(name); });
  for (const auto& [key, value] : own.items())
    if (std::find(known.begin(), known.end(), key) == known.end())
      throw std::invalid_argument(where.key(key).prefix() + "unknown key" + suggestion(key, known));
  return from_json<Settings>(own, where);
}

}  // namespace troupe
