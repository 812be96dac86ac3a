// One answer after another in one engine, as a talk goes: what is kept of earlier turns, and room up to the last token.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/generate/engine.hpp"
#include "tests/core/generate/each_model.hpp"

namespace troupe {
namespace {

using kernels::kPageTokens;

EngineOptions small_options(at::ScalarType dtype = at::kFloat) {
  return {.dtype = dtype, .threads = 2, .max_batch = 8, .max_tokens = 1024};
}

GenerateRequest turn(std::vector<int32_t> prompt, int64_t new_tokens) {
  GenerateRequest r{.id = 1, .seed = 4, .draw = prompt.size(), .prompt = std::move(prompt), .keeps_cache = true};
  r.sampling.max_new_tokens = new_tokens;
  r.sampling.ignore_eos = true;
  return r;
}

Completion answer_of(Engine& engine, const GenerateRequest& request) {
  engine.submit(request);
  while (engine.step()) {
  }
  return engine.take_finished()->completions.at(0);
}

Completion fresh_answer(const DecoderConfig& config, const EngineOptions& options, const GenerateRequest& request) {
  Engine engine(config, random_weights(config, 5), {}, options);
  return answer_of(engine, request);
}

void append(std::vector<int32_t>& tokens, const std::vector<int32_t>& more) {
  tokens.insert(tokens.end(), more.begin(), more.end());
}

void expect_same_bits(const Completion& a, const Completion& b) {
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.logprobs, b.logprobs);
}

class Talk : public EachTableAndModel {
 protected:
  EngineOptions options() const { return with_table(small_options()); }
};

// Turns of many lengths, so that they end before, at and after the end of a page.
TEST_P(Talk, ATurnThatGoesOnComputesWhatIsNewAndIsTheSameBits) {
  Engine engine(model(), random_weights(model(), 5), {}, options());
  std::vector<int32_t> talk;
  for (uint64_t i = 0; i < 12; ++i) {
    const auto known = static_cast<int64_t>(talk.size()) - (i == 0 ? 0 : 1);  // an answer's last token was not fed
    append(talk, random_tokens(1 + static_cast<int64_t>(i * 7 % 19), model().vocab_size, i));
    const GenerateRequest request = turn(talk, 1 + static_cast<int64_t>(i * 5 % 17));
    const uint64_t before = engine.stats().prompt_tokens;
    const Completion got = answer_of(engine, request);
    EXPECT_EQ(static_cast<int64_t>(engine.stats().prompt_tokens - before), static_cast<int64_t>(talk.size()) - known);
    expect_same_bits(got, fresh_answer(model(), options(), request));
    append(talk, got.tokens);
  }
}

TEST_P(Talk, OnlyTheSameTokensAreTakenOver) {
  Engine engine(model(), random_weights(model(), 5), {}, options());
  const std::vector<int32_t> talk = random_tokens(50, model().vocab_size, 3);
  answer_of(engine, turn(talk, 9));
  for (const int64_t same : {50, 49, 32, 31, 16, 1, 0}) {
    std::vector<int32_t> other = talk;
    for (auto i = static_cast<size_t>(same); i < other.size(); ++i) other[i] = (other[i] + 1) % 7;
    other.push_back(1);
    const uint64_t before = engine.stats().prompt_tokens;
    const Completion got = answer_of(engine, turn(other, 9));
    EXPECT_GE(engine.stats().prompt_tokens - before, 1U);
    expect_same_bits(got, fresh_answer(model(), options(), turn(other, 9)));
    answer_of(engine, turn(talk, 9));
  }
  // The same question again: its last token is computed, the others are not.
  const uint64_t before = engine.stats().prompt_tokens;
  expect_same_bits(answer_of(engine, turn(talk, 9)), fresh_answer(model(), options(), turn(talk, 9)));
  EXPECT_EQ(engine.stats().prompt_tokens - before, 1U);
}

INSTANTIATE_TEST_SUITE_P(Kernels, Talk, each_table_and_model(), case_name);

TEST(KeptCache, IsOfTheTokensComputedWhenATurnIsCancelled) {
  DecoderConfig config = odd_config();
  config.max_positions = 1024;
  Engine engine(config, random_weights(config, 5), {}, small_options());
  std::vector<int32_t> talk = random_tokens(600, config.vocab_size, 3);  // more than one pass computes
  engine.submit(turn(talk, 30));
  engine.step();
  EXPECT_TRUE(engine.tokens_so_far(1).empty());
  EXPECT_TRUE(engine.cancel(1));
  const auto first = static_cast<int64_t>(engine.stats().prompt_tokens);
  EXPECT_GT(first, 0);
  engine.submit(turn(talk, 30));
  for (int i = 0; i < 6; ++i) engine.step();
  const std::span<const int32_t> drawn = engine.tokens_so_far(1);
  ASSERT_GT(drawn.size(), 2U);
  append(talk, {drawn.begin(), drawn.end()});
  EXPECT_TRUE(engine.cancel(1));
  EXPECT_EQ(engine.stats().prompt_tokens, 600U);
  talk.push_back(2);
  expect_same_bits(answer_of(engine, turn(talk, 9)), fresh_answer(config, small_options(), turn(talk, 9)));
  EXPECT_EQ(engine.stats().prompt_tokens, 602U);
}

TEST(KeptCache, IsNotUsedWithOtherWeights) {
  const DecoderConfig config = odd_config();
  Engine engine(config, random_weights(config, 6), {}, small_options());
  const std::vector<int32_t> talk = random_tokens(40, config.vocab_size, 3);
  answer_of(engine, turn(talk, 5));
  engine.swap_weights(random_weights(config, 7), 1);
  engine.submit(turn(talk, 5));
  engine.step();
  engine.swap_weights(random_weights(config, 5), 2);  // in the middle of an answer
  while (engine.step()) {
  }
  engine.take_finished();
  expect_same_bits(answer_of(engine, turn(talk, 5)), fresh_answer(config, small_options(), turn(talk, 5)));
}

TEST(KeptCache, MakesRoomForOthers) {
  const DecoderConfig config = odd_config();
  EngineOptions tight = small_options();
  tight.max_tokens = 64;
  Engine engine(config, random_weights(config, 5), {}, tight);
  const std::vector<int32_t> talk = random_tokens(40, config.vocab_size, 3);
  answer_of(engine, turn(talk, 24));
  EXPECT_GT(engine.stats().kv_tokens_held, 0);
  EXPECT_EQ(engine.logits(talk, 1).size(), static_cast<size_t>(config.vocab_size));
  answer_of(engine, turn(talk, 24));
  GenerateRequest other = turn(random_tokens(33, config.vocab_size, 4), 31);
  other.keeps_cache = false;
  expect_same_bits(answer_of(engine, other), fresh_answer(config, small_options(), other));
  other.num_samples = 2;
  other.keeps_cache = true;
  EXPECT_THROW(engine.submit(other), std::invalid_argument);
}

// A cache of exactly the tokens that one answer needs, wherever its prompt ends in a page; again and again.
TEST(Room, OneAnswerFillsTheCacheToItsLastToken) {
  const DecoderConfig config = odd_config();
  for (const int64_t room : {3 * kPageTokens - 1, 3 * kPageTokens, 3 * kPageTokens + 1}) {
    EngineOptions exact = small_options();
    exact.max_tokens = room;
    Engine engine(config, random_weights(config, 5), {}, exact);
    for (int64_t prompt = 1; prompt < room; ++prompt) {
      GenerateRequest request = turn(random_tokens(prompt, config.vocab_size, 3), room - prompt);
      request.keeps_cache = prompt % 3 == 0;
      EXPECT_EQ(answer_of(engine, request).tokens.size(), static_cast<size_t>(room - prompt));
    }
  }
}

}  // namespace
}  // namespace troupe
