#include "core/rewards/rules.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <thread>

#include "core/config.hpp"

namespace troupe {
namespace {

RuleSet rules(const std::string& json) {
  return RuleSet::from_json(parse_json(json, "t"), JsonPath("t.json", "reward"));
}

RuleSet one_rule(const std::string& rule) {
  return rules("{\"rules\": [" + rule + "]}");
}

ScoredSample sample(const std::string& response, const std::string& answer = "") {
  return {.prompt = "What is 2 + 3?",
          .answer = answer,
          .response = response,
          .num_tokens = 10,
          .truncated = false,
          .max_new_tokens = 64};
}

double score(const RuleSet& set, const std::string& response, const std::string& answer = "") {
  return set.score(sample(response, answer)).total;
}

void expect_error(const std::function<void()>& act, const std::vector<std::string>& words) {
  try {
    act();
    FAIL() << "no error, expected: " << words.front();
  } catch (const std::exception& error) {
    for (const std::string& word : words)
      EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << word << " not in: " << error.what();
  }
}

TEST(Rules, AddUpWithTheirWeights) {
  const RuleSet set = rules(R"({"rules": [
    {"type": "numeric", "weight": 1.0},
    {"type": "format", "pattern": "<answer>.*</answer>", "weight": 0.25},
    {"type": "contains", "name": "no apology", "texts": ["sorry"], "require": "none", "weight": -0.5}]})");
  const RuleScores scores = set.score(sample("<answer>5</answer>", "5"));
  EXPECT_DOUBLE_EQ(scores.total, 0.75);
  EXPECT_EQ(scores.parts, (std::map<std::string, double>{{"format", 1}, {"no apology", 1}, {"numeric", 1}}));
  EXPECT_DOUBLE_EQ(score(set, "sorry, 5", "5"), 1);
  EXPECT_EQ(set.weights(),
            (std::vector<std::pair<std::string, double>>{{"numeric", 1.0}, {"format", 0.25}, {"no apology", -0.5}}));
}

TEST(Rules, ThoseThatShapeTheRewardDoNotJudge) {
  const RuleSet set = rules(R"({"rules": [
    {"type": "contains", "texts": ["5"]}, {"type": "numeric", "weight": 0}, {"type": "tags"},
    {"type": "length", "name": "brief", "max_tokens": 20}, {"type": "overlong", "buffer_tokens": 20},
    {"type": "contains", "name": "apology", "texts": ["sorry"], "weight": -0.5}]})");
  EXPECT_EQ(set.shaping(), (std::set<std::string>{"apology", "brief", "overlong"}));
}

TEST(Rules, NumericTakesTheNumberFromItsPlace) {
  const std::string response = "First 7, then 2 + 3 = 5 apples of 9. \\boxed{11} <answer>about 13</answer> 15";
  const auto expect = [&](const std::string& extract, const std::string& number) {
    const RuleSet set = one_rule(R"({"type": "numeric", "extract": ")" + extract + "\"}");
    EXPECT_EQ(score(set, response, number), 1) << extract;
    EXPECT_EQ(score(set, response, "1" + number), 0) << extract;
    EXPECT_EQ(score(set, "nothing", number), 0) << extract;
  };
  expect("last", "15");
  expect("first", "7");
  expect("after_equals", "5");
  expect("boxed", "11");
  expect("tag", "13");
}

TEST(Rules, NumericKnowsToleranceAndForms) {
  EXPECT_EQ(score(one_rule(R"({"type": "numeric"})"), "It is 1,234.50.", "1234.5"), 1);
  EXPECT_EQ(score(one_rule(R"({"type": "numeric"})"), "-3", "3"), 0);
  EXPECT_EQ(score(one_rule(R"({"type": "numeric"})"), "0.75", "3/4"), 1);
  EXPECT_EQ(score(one_rule(R"({"type": "numeric"})"), "72", "She has 3 left.\n#### 72"), 1);
  EXPECT_EQ(score(one_rule(R"({"type": "numeric", "tolerance": 0.01})"), "3.14", "3.14159"), 1);
  EXPECT_EQ(score(one_rule(R"({"type": "numeric", "relative_tolerance": 0.1})"), "91", "100"), 1);
  EXPECT_EQ(score(one_rule(R"({"type": "numeric", "percent_is_hundredth": true})"), "50%", "0.5"), 1);
  EXPECT_EQ(score(one_rule(R"({"type": "numeric"})"), "50%", "50"), 1);
}

TEST(Rules, AnExpectedAnswerThatIsNoNumberIsAnErrorNotAZero) {
  const RuleSet set = one_rule(R"({"type": "numeric", "name": "sum"})");
  expect_error([&] { score(set, "5", "five"); }, {"rule 'sum'", "What is 2 + 3?", "\"five\" is no number"});
  expect_error([&] { score(set, "5", ""); }, {"rule 'sum'", "is no number"});
}

TEST(Rules, FormatMatchesTheWholeResponse) {
  const RuleSet set = one_rule(R"({"type": "format", "pattern": "<think>.*?</think>\\s*<answer>.*?</answer>"})");
  EXPECT_EQ(score(set, "<think>a\nb</think>\n<answer>5</answer>"), 1);
  EXPECT_EQ(score(set, "<think>a</think><answer>5</answer> bye"), 0);
}

TEST(Rules, RegexFindsOrComparesAGroup) {
  EXPECT_EQ(score(one_rule(R"({"type": "regex", "pattern": "\\bfive\\b", "ignore_case": true})"), "It is FIVE!"), 1);
  const RuleSet group = one_rule(R"json({"type": "regex", "pattern": "capital: (\\w+)", "group": 1})json");
  EXPECT_EQ(score(group, "capital: Rome ... capital: Paris", "Paris"), 1);
  EXPECT_EQ(score(group, "capital: Rome", "Paris"), 0);
  EXPECT_EQ(score(group, "nothing", "Paris"), 0);
  expect_error([&] { score(group, "capital: Rome", ""); }, {"rule 'regex'", "no expected answer"});
}

TEST(Rules, ABacktrackingPatternIsAnErrorThatNamesTheRule) {
  const RuleSet set = one_rule(R"({"type": "format", "name": "shape", "pattern": "(a+)+b"})");
  expect_error([&] { score(set, std::string(60, 'a') + "!b"); }, {"rule 'shape'", "(a+)+b", "limit"});
}

TEST(Rules, TagsGivePartialCredit) {
  const RuleSet set = one_rule(R"({"type": "tags"})");
  EXPECT_EQ(score(set, "<think>a</think><answer>b</answer>"), 1);
  EXPECT_EQ(score(set, "<think>a</think><answer>b"), 0.75);
  EXPECT_EQ(score(set, "<think><think></think><answer></answer>"), 0.75);
  EXPECT_EQ(score(set, "plain"), 0);
  EXPECT_EQ(score(one_rule(R"({"type": "tags", "partial": false})"), "<think>a</think><answer>b"), 0);
  EXPECT_EQ(score(one_rule(R"({"type": "tags", "tags": ["x"]})"), "<x>"), 0.5);
}

TEST(Rules, ChoiceReadsTheLetterAndNotTheArticle) {
  const RuleSet set = one_rule(R"({"type": "choice"})");
  for (const char* response :
       {"B", " (B) ", "B.", "**B**", "The answer is B.", "Answer: (B)", "the correct option is B", "so \\boxed{B}",
        "Let me think.\nB. Paris", "I considered A.\n(B) Paris", "Answer: A? No. The answer is B"})
    EXPECT_EQ(score(set, response, "B"), 1) << response;
  for (const char* response : {"A", "Bananas are fine", "The answer is Berlin", "A dog or B cat, who knows", ""})
    EXPECT_EQ(score(set, response, "B"), 0) << response;
  EXPECT_EQ(score(set, "A dog barks", "A"), 0);
  EXPECT_EQ(score(set, "C", "(C)"), 1);
  EXPECT_EQ(score(one_rule(R"({"type": "choice", "tag": "answer"})"), "A <answer>C</answer>", "C"), 1);
  EXPECT_EQ(score(one_rule(R"({"type": "choice", "letters": "ABCDEF"})"), "F", "F"), 1);
  expect_error([&] { score(set, "A", "E"); }, {"rule 'choice'", "none of the letters"});
}

TEST(Rules, ExactNormalisesAsAsked) {
  EXPECT_EQ(score(one_rule(R"({"type": "exact"})"), "  New \n York ", "New York"), 1);
  EXPECT_EQ(score(one_rule(R"({"type": "exact"})"), "new york", "New York"), 0);
  EXPECT_EQ(score(one_rule(R"({"type": "exact", "ignore_case": true, "ignore_final_punctuation": true})"), "new york. ",
                  "New York"),
            1);
  EXPECT_EQ(score(one_rule(R"({"type": "exact", "collapse_whitespace": false})"), "New  York", "New York"), 0);
  EXPECT_EQ(score(one_rule(R"({"type": "exact", "extract": "last_line"})"), "Thinking.\nParis", "Paris"), 1);
  EXPECT_EQ(score(one_rule(R"({"type": "exact", "extract": "tag"})"), "x <answer>Paris</answer>", "Paris"), 1);
  EXPECT_EQ(score(one_rule(R"({"type": "exact", "extract": "tag"})"), "Paris", "Paris"), 0);
  EXPECT_EQ(score(one_rule(R"({"type": "exact", "extract": "boxed"})"), "\\boxed{ x^2 }", "x^2"), 1);
  expect_error([&] { score(one_rule(R"({"type": "exact"})"), "x", " "); }, {"rule 'exact'", "no expected answer"});
}

TEST(Rules, ContainsAnyAllNone) {
  const auto with = [](const std::string& rest) {
    return one_rule(R"({"type": "contains", "texts": ["Red", "blue"])" + rest + "}");
  };
  EXPECT_EQ(score(with(""), "blue sky"), 1);
  EXPECT_EQ(score(with(""), "red sky"), 0);
  EXPECT_EQ(score(with(R"(, "ignore_case": true)"), "RED sky"), 1);
  EXPECT_EQ(score(with(R"(, "require": "all")"), "blue sky"), 0);
  EXPECT_EQ(score(with(R"(, "require": "all")"), "blue and Red"), 1);
  EXPECT_EQ(score(with(R"(, "require": "none")"), "green"), 1);
}

TEST(Rules, LengthIsLinearAndOverlongFallsBeforeTheLimit) {
  const auto at = [](const RuleSet& set, int64_t tokens, int64_t limit = 100) {
    ScoredSample s = sample("x");
    s.num_tokens = tokens;
    s.max_new_tokens = limit;
    return set.score(s).total;
  };
  const RuleSet brief = one_rule(R"({"type": "length", "min_tokens": 10, "max_tokens": 20})");
  EXPECT_EQ(at(brief, 5), 1);
  EXPECT_EQ(at(brief, 15), 0.5);
  EXPECT_EQ(at(brief, 25), 0);
  EXPECT_EQ(at(one_rule(R"({"type": "length", "max_tokens": 20, "prefer": "long"})"), 5), 0.25);
  const RuleSet overlong = one_rule(R"({"type": "overlong", "buffer_tokens": 20})");
  EXPECT_EQ(at(overlong, 80), 0);
  EXPECT_EQ(at(overlong, 90), -0.5);
  EXPECT_EQ(at(overlong, 100), -1);
  EXPECT_EQ(at(one_rule(R"({"type": "overlong", "max_tokens": 50, "buffer_tokens": 20})"), 40), -0.5);
  expect_error([&] { at(overlong, 5, 0); }, {"rule 'overlong'", "max_new_tokens"});
}

TEST(Rules, MistakesInTheConfigurationAreNamed) {
  const auto refused = [](const std::string& json, const std::vector<std::string>& words) {
    expect_error([&] { rules(json); }, words);
  };
  refused(R"({"rules": []})", {"reward.rules", "at least one"});
  refused(R"({})", {"reward.rules", "missing"});
  refused(R"({"rules": [{"type": "numric"}]})", {"reward.rules[0].type", "numric", "numeric"});
  refused(R"({"rules": [{"weight": 1}]})", {"reward.rules[0].type", "missing"});
  refused(R"({"rules": [5]})", {"reward.rules[0]", "object"});
  refused(R"({"rules": [{"type": "numeric", "tolerence": 1}]})", {"rules[0].tolerence", "'tolerance'"});
  refused(R"({"rules": [{"type": "numeric", "wieght": 1}]})", {"rules[0].wieght", "'weight'"});
  refused(R"({"rules": [{"type": "numeric", "weight": "1"}]})", {"rules[0].weight", "number"});
  refused(R"({"rules": [{"type": "numeric", "extract": "lst"}]})", {"rules[0].extract", "last"});
  refused(R"({"rules": [{"type": "numeric", "tolerance": -1}]})", {"rules[0].tolerance"});
  refused(R"({"rules": [{"type": "numeric"}, {"type": "numeric"}]})", {"rules[1].name", "numeric"});
  refused(R"({"rules": [{"type": "format"}]})", {"rules[0].pattern", "missing"});
  refused(R"({"rules": [{"type": "format", "pattern": "("}]})", {"rules[0].pattern", "character"});
  refused(R"({"rules": [{"type": "regex", "pattern": "a", "group": 1}]})", {"rules[0].group"});
  refused(R"({"rules": [{"type": "tags", "tags": []}]})", {"rules[0].tags"});
  refused(R"({"rules": [{"type": "choice", "letters": "ab"}]})", {"rules[0].letters"});
  refused(R"({"rules": [{"type": "length", "max_tokens": 0}]})", {"rules[0].max_tokens"});
  refused(R"({"rules": [{"type": "overlong", "max_tokens": 5, "buffer_tokens": 9}]})", {"rules[0].buffer_tokens"});
}

TEST(Rules, ScoresAreFiniteAlways) {
  const RuleSet huge = rules(R"({"rules": [{"type": "tags", "tags": ["a"], "weight": 1e308},
                                           {"type": "tags", "name": "again", "tags": ["a"], "weight": 1e308}]})");
  expect_error([&] { score(huge, "<a></a>"); }, {"rule 'again'", "not finite"});
  const RuleSet set = rules(R"({"rules": [{"type": "numeric"}, {"type": "tags"}, {"type": "exact"}]})");
  for (const std::string& response : {std::string(), std::string(3, '\0'), std::string("\xFF\xFE"),
                                      std::string("1e999"), std::string(100000, '{'), std::string("-\\frac{")})
    EXPECT_TRUE(std::isfinite(score(set, response, "5")));
}

TEST(Rules, ScoringIsTheSameFromManyThreads) {
  const RuleSet set = rules(R"({"rules": [{"type": "numeric", "extract": "tag"}, {"type": "tags"},
                                          {"type": "format", "pattern": ".*<answer>\\d+</answer>"}]})");
  std::vector<double> totals(4);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < totals.size(); ++i)
    threads.emplace_back([&, i] {
      for (int k = 0; k < 200; ++k) totals[i] += score(set, "<think>a</think><answer>5</answer>", "5");
    });
  for (std::thread& t : threads) t.join();
  for (const double total : totals) EXPECT_EQ(total, 600);
}

}  // namespace
}  // namespace troupe
