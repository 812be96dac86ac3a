#include "core/data/prompts.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <set>

namespace troupe {
namespace {

// A file of its own for each test process.
class Prompts : public testing::Test {
 protected:
  void SetUp() override {
    file_ = std::filesystem::temp_directory_path() / ("troupe_prompts_" + std::to_string(getpid()) + ".jsonl");
  }
  void TearDown() override { std::filesystem::remove(file_); }

  PromptFile read(const std::string& text, MalformedLine on_malformed = MalformedLine::kError) {
    std::ofstream(file_, std::ios::binary) << text;
    return read_prompts(file_, on_malformed);
  }

  void expect_error(const std::string& text, const std::string& words) {
    try {
      read(text);
      FAIL() << "accepted, expected: " << words;
    } catch (const std::runtime_error& error) {
      EXPECT_NE(std::string(error.what()).find(file_.string() + words), std::string::npos) << error.what();
    }
  }

  std::filesystem::path file_;
};

TEST_F(Prompts, AreReadInBothForms) {
  const auto prompts = read(R"({"prompt": "2 + 3?", "answer": "5", "id": "a", "level": 3}
{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]}
{"prompt": "4 * 5?", "answer": 20, "id": 7}
{"prompt": "null answer", "answer": null}
)")
                           .prompts;
  ASSERT_EQ(prompts.size(), 4u);
  EXPECT_EQ(prompts[0].text, "2 + 3?");
  EXPECT_EQ(prompts[0].answer, "5");
  EXPECT_EQ(prompts[0].id, "a");
  EXPECT_TRUE(prompts[0].messages.empty());
  EXPECT_EQ(prompts[1].text, "Hi");
  EXPECT_EQ(prompts[1].messages, (std::vector<ChatTurn>{{"system", "Be brief."}, {"user", "Hi"}}));
  EXPECT_EQ(prompts[2].answer, "20");
  EXPECT_EQ(prompts[2].id, "7");
  EXPECT_EQ(prompts[3].answer, "");
  EXPECT_EQ(prompts[2].line, 3);
}

TEST_F(Prompts, OfConversationsTheLastAnswerIsNoPart) {
  const auto prompts =
      read(
          R"({"conversations": [{"role": "system", "content": "S"}, {"role": "user", "content": "2 + 3?"}, {"role": "assistant", "content": "5"}]}
{"conversations": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]}
{"conversations": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "answer": 7}
)")
          .prompts;
  ASSERT_EQ(prompts.size(), 3u);
  EXPECT_EQ(prompts[0].messages, (std::vector<ChatTurn>{{"system", "S"}, {"user", "2 + 3?"}}));
  EXPECT_EQ(prompts[0].text, "2 + 3?");
  EXPECT_EQ(prompts[0].answer, "5");
  EXPECT_EQ(prompts[1].messages.size(), 3u);
  EXPECT_EQ(prompts[1].answer, "");
  EXPECT_EQ(prompts[2].answer, "7");
}

TEST_F(Prompts, ByteOrderMarkCrlfAndEmptyLinesAreTolerated) {
  const auto prompts = read("\xEF\xBB\xBF{\"prompt\": \"a\"}\r\n\r\n  \t\n{\"prompt\": \"b\"}").prompts;
  ASSERT_EQ(prompts.size(), 2u);
  EXPECT_EQ(prompts[0].text, "a");
  EXPECT_EQ(prompts[1].text, "b");
  EXPECT_EQ(prompts[1].line, 4);
}

TEST_F(Prompts, MalformedLinesAreErrorsWithTheirLine) {
  const std::string good = "{\"prompt\": \"a\"}\n";
  expect_error(good + "{\"prompt\": }", ":2:12");
  expect_error(good + "[1]", ":2: none of");
  expect_error(good + "{\"question\": \"a\"}", ":2: none of \"prompt\", \"messages\" and \"conversations\"; expected");
  expect_error(good + "{\"prompt\": \"a\", \"messages\": []}", ":2: more than one of");
  expect_error(good + "{\"conversations\": \"a\"}", ":2: \"conversations\" is no list");
  expect_error(good + R"({"conversations": [{"role": "assistant", "content": "x"}]})", ":2: the last of");
  expect_error(good + R"({"conversations": [{"role": "user", "content": "x"}, {"from": "gpt"}]})",
               ":2: conversations[1]: \"role\" is missing");
  expect_error(good + "{\"prompt\": 5}", ":2: \"prompt\" is no string");
  expect_error(good + "{\"prompt\": \"\"}", ":2: the prompt is empty");
  expect_error(good + "{\"prompt\": \"a\", \"answer\": [5]}", ":2: \"answer\" is neither");
  expect_error(good + "{\"messages\": []}", ":2: \"messages\" is no list");
  expect_error(good + R"({"messages": [{"role": "user"}]})", ":2: messages[0]: \"content\" is missing");
  expect_error(good + R"({"messages": [{"role": "assistant", "content": "x"}]})", ":2: the last of");
  expect_error(good + "{\"prompt\": \"\xC3(\"}", ":2");
  expect_error(good + "{\"prompt\": \"a\", \"prompt\": \"b\"}", ":2");
}

TEST_F(Prompts, MalformedLinesAreSkippedAndCountedWhenAsked) {
  const auto got = read("{\"prompt\": \"a\"}\nnonsense\n{\"prompt\": 1}\n{\"prompt\": \"b\"}\n", MalformedLine::kSkip);
  EXPECT_EQ(got.prompts.size(), 2u);
  EXPECT_EQ(got.num_skipped, 2);
  EXPECT_NE(got.first_skipped.find(":2"), std::string::npos);
  EXPECT_EQ(got.prompts[1].line, 4);
}

TEST_F(Prompts, LinesBeyondTheLimitAreRefusedAndTheNextIsFound) {
  const std::string huge = "{\"prompt\": \"" + std::string((16 << 20) + 10, 'x') + "\"}\n";
  expect_error(huge, ":1: the line is longer than 16 MiB");
  const auto got = read(huge + "{\"prompt\": \"after\"}\n", MalformedLine::kSkip);
  ASSERT_EQ(got.prompts.size(), 1u);
  EXPECT_EQ(got.prompts[0].text, "after");
  EXPECT_EQ(got.prompts[0].line, 2);
}

TEST_F(Prompts, LinesAcrossReadBlocksStayWhole) {
  std::string text;
  for (int i = 0; i < 3000; ++i)
    text += "{\"prompt\": \"" + std::string(static_cast<std::size_t>(i % 97), 'p') + std::to_string(i) + "\"}\n";
  const auto prompts = read(text).prompts;
  ASSERT_EQ(prompts.size(), 3000u);
  for (int i = 0; i < 3000; ++i)
    EXPECT_EQ(prompts[i].text, std::string(static_cast<std::size_t>(i % 97), 'p') + std::to_string(i));
}

TEST_F(Prompts, AFileWithoutPromptsOrNoFileIsAnError) {
  expect_error("\n\n", ": holds no line");
  EXPECT_THROW(read_prompts(file_.string() + ".missing"), std::runtime_error);
  EXPECT_THROW(read_prompts(std::filesystem::temp_directory_path()), std::runtime_error);
}

TEST(PromptOrder, DrawsEveryPromptOncePerEpoch) {
  for (const uint64_t size : {1u, 2u, 3u, 5u, 16u, 17u, 100u, 1000u}) {
    const PromptOrder order(42, size);
    for (uint64_t epoch = 0; epoch < 3; ++epoch) {
      std::set<uint64_t> seen;
      for (uint64_t i = 0; i < size; ++i) {
        const uint64_t prompt = order.prompt_of(epoch * size + i);
        EXPECT_LT(prompt, size);
        seen.insert(prompt);
        EXPECT_EQ(order.epoch_of(epoch * size + i), epoch);
      }
      EXPECT_EQ(seen.size(), size);
    }
  }
}

std::vector<uint64_t> first_draws(uint64_t seed, uint64_t size, uint64_t from, uint64_t count) {
  std::vector<uint64_t> out;
  const PromptOrder order(seed, size);
  for (uint64_t i = 0; i < count; ++i) out.push_back(order.prompt_of(from + i));
  return out;
}

TEST(PromptOrder, IsAFunctionOfSeedAndDraw) {
  EXPECT_EQ(first_draws(1, 1000, 0, 50), first_draws(1, 1000, 0, 50));
  EXPECT_NE(first_draws(1, 1000, 0, 50), first_draws(2, 1000, 0, 50));
  EXPECT_NE(first_draws(1, 1000, 0, 50), first_draws(1, 1000, 1000, 50));  // another epoch, another order
  // The order is part of every recorded run: these figures must not change.
  EXPECT_EQ(first_draws(1, 10, 0, 10), (std::vector<uint64_t>{4, 3, 2, 7, 8, 6, 1, 0, 9, 5}));
}

TEST(PromptOrder, MixesWell) {
  // Each place of the order holds each prompt about equally often over many epochs.
  constexpr uint64_t kSize = 8, kEpochs = 8000;
  const PromptOrder order(7, kSize);
  std::vector<std::vector<int>> counts(kSize, std::vector<int>(kSize));
  for (uint64_t draw = 0; draw < kSize * kEpochs; ++draw) ++counts[draw % kSize][order.prompt_of(draw)];
  for (const auto& place : counts)
    for (const int count : place) EXPECT_NEAR(count, 1000, 160);  // more than five deviations
}

TEST(PromptOrder, RefusesNothingToDrawFrom) {
  EXPECT_THROW(PromptOrder(1, 0), std::invalid_argument);
}

}  // namespace
}  // namespace troupe
