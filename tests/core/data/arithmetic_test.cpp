#include "core/data/arithmetic.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "core/data/prompts.hpp"

namespace troupe {
namespace {

struct Parsed {
  int64_t a, b;
  char op;
};

// Both operands may be negative: the operation is the first of + - * after a digit.
Parsed parsed(const std::string& id) {
  const std::size_t at = id.find_first_of("+-*", 1);
  return {std::stoll(id.substr(0, at)), std::stoll(id.substr(at + 1)), id[at]};
}

// The pair as one side holds it.
std::string pair_of(const std::string& id) {
  const Parsed p = parsed(id);
  const bool turn = p.op != '-' && p.b < p.a;
  return std::to_string(turn ? p.b : p.a) + p.op + std::to_string(turn ? p.a : p.b);
}

TEST(Arithmetic, AsksEveryQuestionOnceWithTheRightAnswer) {
  ArithmeticConfig c;
  c.low = -3;
  c.high = 5;
  c.operations = {"+", "-", "*"};
  const ArithmeticTask task = make_arithmetic(c);
  EXPECT_EQ(task.train.size(), 9u * 9 * 3);
  std::set<std::string> ids;
  for (const ArithmeticQuestion& q : task.train) {
    ids.insert(q.id);
    const Parsed p = parsed(q.id);
    const int64_t expected = p.op == '+' ? p.a + p.b : p.op == '-' ? p.a - p.b : p.a * p.b;
    EXPECT_EQ(q.answer, std::to_string(expected)) << q.id;
    EXPECT_EQ(q.prompt,
              "What is " + std::to_string(p.a) + " " + p.op + " " + std::to_string(p.b) + "? Answer with a number.");
  }
  EXPECT_EQ(ids.size(), task.train.size());
}

TEST(Arithmetic, HeldOutPairsAreNotTrainedOnInEitherOrder) {
  ArithmeticConfig c;
  c.high = 20;
  c.operations = {"+", "-"};
  c.num_heldout = 100;
  c.num_train = 300;
  c.seed = 3;
  const ArithmeticTask task = make_arithmetic(c);
  EXPECT_EQ(task.heldout.size(), 100u);
  EXPECT_EQ(task.train.size(), 300u);
  std::set<std::string> trained;
  for (const ArithmeticQuestion& q : task.train) trained.insert(pair_of(q.id));
  for (const ArithmeticQuestion& q : task.heldout) EXPECT_EQ(trained.count(pair_of(q.id)), 0u) << q.id;
}

std::vector<std::string> ids(const std::vector<ArithmeticQuestion>& questions) {
  std::vector<std::string> out;
  for (const ArithmeticQuestion& q : questions) out.push_back(q.id);
  return out;
}

TEST(Arithmetic, IsAFunctionOfTheSeed) {
  ArithmeticConfig c;
  c.num_heldout = 20;
  const auto first = make_arithmetic(c);
  EXPECT_EQ(ids(first.train), ids(make_arithmetic(c).train));
  EXPECT_EQ(ids(first.heldout), ids(make_arithmetic(c).heldout));
  c.seed = 1;
  EXPECT_NE(ids(first.train), ids(make_arithmetic(c).train));
}

TEST(Arithmetic, WritesFilesThatThePromptReaderReads) {
  ArithmeticConfig c;
  c.num_heldout = 5;
  const ArithmeticTask task = make_arithmetic(c);
  const auto folder = std::filesystem::temp_directory_path() / ("troupe_sums_" + std::to_string(getpid()));
  const auto file = folder / "in/train.jsonl";  // folders that are not there yet
  write_questions(task.train, file);
  const PromptFile read = read_prompts(file);
  std::filesystem::remove_all(folder);
  ASSERT_EQ(read.prompts.size(), task.train.size());
  for (std::size_t i = 0; i < task.train.size(); ++i) {
    EXPECT_EQ(read.prompts[i].text, task.train[i].prompt);
    EXPECT_EQ(read.prompts[i].answer, task.train[i].answer);
    EXPECT_EQ(read.prompts[i].id, task.train[i].id);
  }
}

TEST(Arithmetic, RefusesSettingsThatMakeNoTask) {
  const auto refused = [](auto change, const std::string& words) {
    ArithmeticConfig c;
    change(c);
    try {
      make_arithmetic(c);
      FAIL() << "accepted, expected: " << words;
    } catch (const std::invalid_argument& error) {
      EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
    }
  };
  refused([](auto& c) { c.low = 10; }, "low <= high");
  refused([](auto& c) { c.operations = {"/"}; }, "unknown operation");
  refused([](auto& c) { c.operations = {}; }, "at least one");
  refused([](auto& c) { c.operations = {"+", "+"}; }, "twice");
  refused([](auto& c) { c.question = "What is {a} and {b}?"; }, "{op}");
  refused([](auto& c) { c.num_heldout = 82; }, "81 exist");
  refused([](auto& c) { c.num_heldout = 40, c.num_train = 60; }, "left beside");
  refused([](auto& c) { c.high = 1'000'000; }, "4 million");
  refused([](auto& c) { c.num_train = -1; }, "negative");
}

}  // namespace
}  // namespace troupe
