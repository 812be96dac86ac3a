// Rewards by rule: what an answer is worth, computed from its text and the data file's expected answer.
//
//   {"rules": [{"type": "numeric", "weight": 1.0, "extract": "last"},
//              {"type": "format", "pattern": "<answer>.*</answer>", "weight": 0.2}]}
//
// docs/algorithms.md lists the rules and their settings. No torch, no sockets.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace troupe {

class JsonPath;  // core/config.hpp

// One answer with what a rule may look at.
struct ScoredSample {
  std::string prompt;
  std::string answer;  // the data file's expected answer, "" if it has none
  std::string response;
  int64_t num_tokens = 0;  // of the response
  bool truncated = false;  // the response ran into max_new_tokens
  int64_t max_new_tokens = 0;
};

struct RuleScores {
  double total = 0;                     // sum of weight x value; always finite
  std::map<std::string, double> parts;  // each rule's own value before its weight, by the rule's name
};

// A list of rules with weights. Immutable after construction: score() is const, deterministic and thread-safe.
class RuleSet {
 public:
  // Throws std::invalid_argument naming the path under `where`: an unknown rule or key (with its nearest neighbour), a
  // pattern that does not compile, two rules of the same name, no rule at all.
  static RuleSet from_json(const nlohmann::json& config, const JsonPath& where);

  RuleSet(RuleSet&&) noexcept;
  RuleSet& operator=(RuleSet&&) noexcept;
  ~RuleSet();

  // A poor answer scores low. A rule that cannot be computed at all (a numeric rule and an expected answer that is no
  // number, a pattern that runs past its match limit) throws std::runtime_error naming rule and sample: never a silent
  // 0.
  RuleScores score(const ScoredSample& sample) const;

  // Names and weights in the order of the configuration.
  std::vector<std::pair<std::string, double>> weights() const;

  // Names of the rules that shape the reward and say nothing of right and wrong: length, overlong, and penalties (a
  // weight below 0).
  std::set<std::string> shaping() const;

 private:
  struct Part;
  explicit RuleSet(std::vector<Part> parts);
  std::vector<Part> parts_;
};

}  // namespace troupe
