// Perplexity and multiple choice against transformers (tests/oracles/evaluate/make_evaluation.py).
#include <gtest/gtest.h>

#include <cmath>

#include "core/config.hpp"
#include "roles/chosen_model.hpp"
#include "roles/multiple_choice.hpp"
#include "roles/perplexity.hpp"
#include "tests/support/command.hpp"

namespace troupe {
namespace {

const std::filesystem::path kFolder = std::filesystem::path(TROUPE_SOURCE_DIR) / "tests/oracles/data/evaluate";

struct Tiny {
  ChosenModel model = choose_model({.load_from = kFolder / "model"}, at::kFloat);
  std::unique_ptr<Engine> engine = make_engine(model, {.threads = 1, .dtype = "f32", .device = "cpu"});
  Json expected = parse_json_file(kFolder / "expected.json");
};

std::optional<int32_t> bos_of(const Json& c) {
  return c["bos"].get<bool>() ? std::optional<int32_t>(1) : std::nullopt;
}

TEST(Perplexity, IsThatOfTransformersForEveryWindow) {
  const Tiny tiny;
  ASSERT_EQ(tiny.expected["perplexity"].size(), 6u);
  for (const Json& c : tiny.expected["perplexity"]) {
    const WindowOptions windows{.max_length = c["max_length"], .stride = c["stride"], .bos = bos_of(c)};
    const PerplexityResult found =
        measure_perplexity(*tiny.engine, tiny.model.tokenizer, kFolder / c["texts"].get<std::string>(), windows);
    EXPECT_EQ(found.tokens, c["tokens"].get<int64_t>()) << c;
    EXPECT_EQ(found.scored, c["scored"].get<int64_t>()) << c;
    EXPECT_EQ(found.windows, c["windows"].get<int64_t>()) << c;
    const double sum = c["sum"];
    EXPECT_NEAR(found.log_likelihood, sum, 1e-6 * std::abs(sum)) << c;
    EXPECT_NEAR(found.perplexity(), std::exp(-sum / c["scored"].get<double>()), 1e-5 * found.perplexity());
  }
}

TEST(Perplexity, ATextOfOneTokenIsNamed) {
  const Tiny tiny;
  ScratchFolder folder;
  write_text(folder / "short.txt", "x");
  write_text(folder / "bad.jsonl", "{\"text\": \"good\"}\n{\"txt\": \"bad\"}\n");
  const auto refusal = [&](const std::string& name) {
    try {
      measure_perplexity(*tiny.engine, tiny.model.tokenizer, folder / name, {.max_length = 8, .stride = 4, .bos = {}});
    } catch (const std::runtime_error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(refusal("short.txt"), (folder / "short.txt").string() + ": holds no text of at least two tokens");
  EXPECT_EQ(refusal("bad.jsonl"), (folder / "bad.jsonl").string() + ":2: \"text\" is missing; expected a string");
}

TEST(MultipleChoice, PromptsAndScoresAreThoseOfTransformers) {
  const Tiny tiny;
  ASSERT_EQ(tiny.expected["choice"].size(), 4u);
  for (const Json& c : tiny.expected["choice"]) {
    ChoiceData data = read_choice_data(kFolder / "questions.jsonl", "", 0);
    ChoiceSubject& subject = data.subjects.at(0);
    subject.examples = read_choice_data(kFolder / "examples.jsonl", "", 0).subjects.at(0).questions;
    subject.examples.resize(c["shots"].get<size_t>());
    const ChoiceOptions how{.options = c["options"],
                            .space = c["space"],
                            .normalise = c["normalise"],
                            .cue = c["cue"],
                            .bos = bos_of(c),
                            .context = 512};
    for (size_t q = 0; q < subject.questions.size(); ++q)
      EXPECT_EQ(choice_prompt(subject.questions[q], subject.examples, how), c["prompts"][q].get<std::string>());
    const auto scores = score_choices(*tiny.engine, tiny.model.tokenizer, subject, how);
    ASSERT_EQ(scores.size(), c["scores"].size());
    int64_t right = 0;
    for (size_t q = 0; q < scores.size(); ++q) {
      const std::vector<double> expected = c["scores"][q];
      ASSERT_EQ(scores[q].size(), expected.size());
      for (size_t i = 0; i < expected.size(); ++i)
        EXPECT_NEAR(scores[q][i], expected[i], 1e-5 * std::max(1.0, std::abs(expected[i]))) << "question " << q;
      right += std::ranges::max_element(expected) - expected.begin() == subject.questions[q].answer;
    }
    const auto results = answer_choices(*tiny.engine, tiny.model.tokenizer, data, how, [](const SubjectAccuracy&) {});
    EXPECT_EQ(results.at(0).accuracy.right, right);
    EXPECT_EQ(results.at(0).accuracy.questions, 5);
  }
}

TEST(MultipleChoice, ExamplesThatDoNotFitAreLeftOutAndCounted) {
  const Tiny tiny;
  ChoiceSubject subject = read_choice_data(kFolder / "questions.jsonl", "", 0).subjects.at(0);
  subject.questions.resize(1);
  ChoiceOptions how{.context = 512};
  const auto alone = score_choices(*tiny.engine, tiny.model.tokenizer, subject, how);
  subject.examples = read_choice_data(kFolder / "examples.jsonl", "", 0).subjects.at(0).questions;
  how.context =
      static_cast<int64_t>(tiny.model.tokenizer.encode(choice_prompt(subject.questions[0], {}, how) + "A").size());
  int64_t left_out = 0;
  EXPECT_EQ(score_choices(*tiny.engine, tiny.model.tokenizer, subject, how, &left_out), alone);
  EXPECT_EQ(left_out, 2);
  how.context = 10;
  try {
    score_choices(*tiny.engine, tiny.model.tokenizer, subject, how);
    FAIL();
  } catch (const std::runtime_error& error) {
    EXPECT_NE(std::string(error.what()).find("questions.jsonl:1: the question has "), std::string::npos)
        << error.what();
  }
}

// Values of Wilson's interval worked out by hand from its formula; the second is the usual textbook case.
TEST(MultipleChoice, TheIntervalIsWilsons) {
  const Accuracy none{.questions = 10, .right = 0}, half{.questions = 100, .right = 50},
      all{.questions = 4, .right = 4};
  EXPECT_NEAR(none.low(), 0, 1e-12);
  EXPECT_NEAR(none.high(), 0.277533, 1e-6);
  EXPECT_NEAR(half.low(), 0.403832, 1e-6);
  EXPECT_NEAR(half.high(), 0.596168, 1e-6);
  EXPECT_NEAR(all.low(), 0.510109, 1e-6);
  EXPECT_NEAR(all.high(), 1, 1e-12);
}

TEST(Eval, MeasuresAsACommandAndWritesItsFigures) {
  ScratchFolder folder;
  const std::string model = kFolder / "model";
  Ended ended = call({"eval", "--mode", "perplexity", "--load_from", model, "--data", kFolder / "text.txt",
                      "--max_length", "64", "--stride", "32", "--output", folder / "p.json", "--threads", "1"});
  EXPECT_EQ(ended.code, 0) << ended.err;
  EXPECT_NE(ended.out.find("perplexity "), std::string::npos) << ended.out;
  const Json expected = parse_json_file(kFolder / "expected.json");
  Json found = parse_json_file(folder / "p.json");
  EXPECT_NEAR(found["log_likelihood"].get<double>(), expected["perplexity"][0]["sum"].get<double>(), 1e-3);
  EXPECT_EQ(found["tokens_scored"], expected["perplexity"][0]["scored"]);

  ended = call({"eval", "--mode", "choice", "--load-from", model, "--data", kFolder / "questions.jsonl", "--cue",
                "答案：", "--letters", "bare", "--output", folder / "c.json", "--threads", "1"});
  EXPECT_EQ(ended.code, 0) << ended.err;
  EXPECT_NE(ended.out.find("total"), std::string::npos) << ended.out;
  found = parse_json_file(folder / "c.json");
  EXPECT_EQ(found["total"]["questions"], 5);
  EXPECT_EQ(found["subjects"][0]["name"], "questions");
  EXPECT_NEAR(found["chance"].get<double>(), (0.25 * 3 + 0.5 + 0.2) / 5, 1e-12);
}

TEST(Eval, WhatIsWrongIsOneClearLine) {
  const std::string model = kFolder / "model";
  const auto refused = [&](std::vector<std::string> more, const std::string& about) {
    std::vector<std::string> words{"eval"};
    if (std::ranges::find(more, "--load-from") == more.end()) words.insert(words.end(), {"--load-from", model});
    words.insert(words.end(), more.begin(), more.end());
    const Ended ended = call(words);
    EXPECT_EQ(ended.code, 1);
    EXPECT_TRUE(ended.err.starts_with("troupe: ")) << ended.err;
    EXPECT_EQ(std::ranges::count(ended.err, '\n'), 1) << ended.err;
    EXPECT_NE(ended.err.find(about), std::string::npos) << ended.err;
  };
  refused({"--mode", "perplexity"}, "--data: needed");
  refused({"--mode", "perplexity", "--data", "/nowhere.txt"}, "/nowhere.txt");
  refused({"--mode", "perplexity", "--data", kFolder / "text.txt", "--max-length", "513"},
          "the model's context of 512");
  refused({"--mode", "perplexity", "--data", kFolder / "text.txt", "--max-length", "8", "--stride", "8"},
          "--stride: 8");
  // Not after the measurement: nothing is loaded yet.
  refused({"--mode", "perplexity", "--data", kFolder / "text.txt", "--output", "/nowhere/x.json", "--load-from", "/no"},
          "--output: /nowhere/x.json cannot be written");
  refused({"--mode", "choice", "--data", kFolder / "questions.jsonl", "--output", "/tmp", "--load-from", "/no"},
          "--output: /tmp cannot be written");
  refused({"--mode", "choice", "--data", kFolder / "text.txt"}, "expected a .csv or .jsonl file");
  refused({"--mode", "auto", "--historys", "3"}, "--historys: 3");
  refused({"--mode", "auto", "--load-from", "/nowhere"}, "/nowhere: no such model folder");
  refused({}, "expected 0 (automatic test) or 1");
}

}  // namespace
}  // namespace troupe
