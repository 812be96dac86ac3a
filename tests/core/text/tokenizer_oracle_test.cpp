// Ids and texts equal to the reference library's, on every kind of tokenizer and a hard corpus (tests/oracles/text).
#include <gtest/gtest.h>

#include "core/text/unicode.hpp"
#include "tests/core/text/fixtures.hpp"

namespace troupe {
namespace {

using Ids = std::vector<int32_t>;

class TokenizerOracle : public testing::TestWithParam<const char*> {
 protected:
  // Calls check(text, case, tokenizer) for each recorded text.
  template <typename Check>
  void for_each_case(Check check) const {
    const nlohmann::json oracle = read_oracle(std::string("tokenizers/") + GetParam() + ".json");
    const Tokenizer tokenizer = tokenizer_of(oracle);
    const std::vector<std::string> texts = oracle_texts();
    const auto every = oracle["every"].get<size_t>();
    ASSERT_EQ(oracle["cases"].size(), (texts.size() + every - 1) / every);
    for (size_t i = 0; i < oracle["cases"].size(); ++i) check(texts[i * every], oracle["cases"][i], tokenizer);
  }
};

TEST_P(TokenizerOracle, EncodesAsTheReference) {
  for_each_case([](const std::string& text, const nlohmann::json& expected, const Tokenizer& tokenizer) {
    const Ids ids = expected["ids"];
    EXPECT_EQ(tokenizer.encode(text, SpecialTokens::kParse), ids) << nlohmann::json(text);
    EXPECT_EQ(tokenizer.encode(text), expected.value("as_text", ids)) << nlohmann::json(text);
    EXPECT_EQ(tokenizer.encode_with_bos(text, SpecialTokens::kParse), expected.value("with_bos", ids));
  });
}

TEST_P(TokenizerOracle, DecodesAsTheReference) {
  for_each_case([](const std::string& text, const nlohmann::json& expected, const Tokenizer& tokenizer) {
    const Ids ids = expected["ids"];
    const std::string decoded = expected.value("decoded", text);
    EXPECT_EQ(tokenizer.decode(ids, false), decoded) << nlohmann::json(ids);
    EXPECT_EQ(tokenizer.decode(ids, true), expected.value("skipped", decoded)) << nlohmann::json(ids);
  });
}

TEST_P(TokenizerOracle, StreamsWhatItDecodes) {
  for_each_case([](const std::string&, const nlohmann::json& expected, const Tokenizer& tokenizer) {
    const Ids ids = expected["ids"];
    StreamDecoder stream(tokenizer, false);
    std::string text;
    for (const int32_t id : ids) {
      const std::string part = stream.push(id);
      EXPECT_TRUE(is_utf8(part)) << "a character was split";
      text += part;
    }
    EXPECT_EQ(text + stream.flush(), tokenizer.decode(ids, false));
  });
}

INSTANTIATE_TEST_SUITE_P(Kinds, TokenizerOracle,
                         testing::Values("gpt2", "gpt2_prefix_space", "smollm", "digits_whole", "llama3", "qwen2",
                                         "deepseek_coder", "deepseek_v3", "odd_tokens", "nfd", "nfkd_replace",
                                         "split_previous", "split_next", "split_contiguous", "split_removed",
                                         "split_invert", "split_string", "no_alphabet", "no_unknown", "byte_fallback"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace troupe
