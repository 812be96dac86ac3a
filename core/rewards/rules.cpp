#include "core/rewards/rules.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/rewards/extraction.hpp"
#include "core/rewards/rule_kinds.hpp"

namespace troupe {
namespace {

struct Kind {
  std::string_view type;
  Rule (*make)(const Json& settings, const JsonPath& where);
  bool shapes = false;  // the value 1 does not say that an answer is right
};

constexpr std::array kKinds{
    Kind{"numeric", make_numeric_rule},
    Kind{"choice", make_choice_rule},
    Kind{"exact", make_exact_rule},
    Kind{"format", make_format_rule},
    Kind{"regex", make_regex_rule},
    Kind{"tags", make_tags_rule},
    Kind{"contains", make_contains_rule},
    Kind{"length", make_length_rule, true},
    Kind{"overlong", make_overlong_rule, true},
};

struct RuleSetSettings {
  Required<std::vector<Json>> rules;
  static constexpr std::tuple kFields{Field{"rules", &RuleSetSettings::rules}};
};
TROUPE_FIELDS_COMPLETE(RuleSetSettings);

// type, name and weight; the rest of the object is the kind's own business.
RuleHead head_of(const Json& rule, const JsonPath& where) {
  if (!rule.is_object()) throw std::invalid_argument(where.prefix() + "expected an object with \"type\"");
  Json head = Json::object();
  for (const char* key : {"type", "name", "weight"})
    if (rule.contains(key)) head[key] = rule[key];
  return from_json<RuleHead>(head, where);
}

const Kind& kind_of(const std::string& type, const JsonPath& where) {
  std::vector<std::string_view> types;
  for (const Kind& kind : kKinds) {
    if (kind.type == type) return kind;
    types.push_back(kind.type);
  }
  throw std::invalid_argument(where.key("type").prefix() + "unknown rule \"" + type + "\"" + suggestion(type, types));
}

}  // namespace

struct RuleSet::Part {
  std::string name;
  double weight = 1;
  Rule rule;
  bool shapes = false;
};

RuleSet::RuleSet(std::vector<Part> parts) : parts_(std::move(parts)) {}
RuleSet::RuleSet(RuleSet&&) noexcept = default;
RuleSet& RuleSet::operator=(RuleSet&&) noexcept = default;
RuleSet::~RuleSet() = default;

RuleSet RuleSet::from_json(const Json& config, const JsonPath& where) {
  const auto settings = troupe::from_json<RuleSetSettings>(config, where);
  const JsonPath list = where.key("rules");
  if (settings.rules->empty()) throw std::invalid_argument(list.prefix() + "expected at least one rule");
  std::vector<Part> parts;
  std::set<std::string> names;
  for (std::size_t i = 0; i < settings.rules->size(); ++i) {
    const Json& rule = (*settings.rules)[i];
    const JsonPath at = list.index(i);
    const RuleHead head = head_of(rule, at);
    const std::string name = head.name.value_or(*head.type);
    if (name.empty()) throw std::invalid_argument(at.key("name").prefix() + "expected a name");
    const Kind& kind = kind_of(*head.type, at);
    Rule made = kind.make(rule, at);
    if (!names.insert(name).second)
      throw std::invalid_argument(at.key("name").prefix() + "another rule is named \"" + name +
                                  "\"; give one of them another \"name\"");
    parts.push_back({name, head.weight, std::move(made), kind.shapes || head.weight < 0});
  }
  return RuleSet(std::move(parts));
}

RuleScores RuleSet::score(const ScoredSample& sample) const {
  RuleScores scores;
  for (const Part& part : parts_) {
    double value = 0;
    try {
      value = part.rule(sample);
    } catch (const std::exception& error) {
      throw std::runtime_error("rule '" + part.name + "', prompt \"" + beginning(sample.prompt) +
                               "\": " + error.what());
    }
    scores.parts[part.name] = value;
    scores.total += part.weight * value;
    if (!std::isfinite(scores.total))
      throw std::runtime_error("rule '" + part.name + "', prompt \"" + beginning(sample.prompt) +
                               "\": the score is not finite");
  }
  return scores;
}

std::vector<std::pair<std::string, double>> RuleSet::weights() const {
  std::vector<std::pair<std::string, double>> out;
  for (const Part& part : parts_) out.emplace_back(part.name, part.weight);
  return out;
}

std::set<std::string> RuleSet::shaping() const {
  std::set<std::string> out;
  for (const Part& part : parts_)
    if (part.shapes) out.insert(part.name);
  return out;
}

}  // namespace troupe
