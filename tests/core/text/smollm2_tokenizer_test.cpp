// The real SmolLM2's tokenizer. TROUPE_SMOLLM2 names a folder with its tokenizer.json, or its GGUF file.
#include <gtest/gtest.h>

#include <cstdlib>

#include "core/io/gguf.hpp"
#include "tests/core/text/fixtures.hpp"

namespace troupe {
namespace {

class SmolLm2 : public testing::Test {
 protected:
  void SetUp() override {
    const char* named = std::getenv("TROUPE_SMOLLM2");
    if (named == nullptr) GTEST_SKIP() << "TROUPE_SMOLLM2 names no model";
    const std::filesystem::path path = named;
    tokenizer_.emplace(std::filesystem::is_directory(path) ? Tokenizer::from_folder(path)
                                                           : Tokenizer::from_gguf(gguf_vocabulary(GgufFile(path))));
  }

  std::optional<Tokenizer> tokenizer_;
};

TEST_F(SmolLm2, EncodesAsTheReference) {
  const std::vector<std::string> texts = oracle_texts();
  const nlohmann::json expected = read_oracle("smollm2_ids.json");
  ASSERT_EQ(expected.size(), (texts.size() + 1) / 2);
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(tokenizer_->encode(texts[2 * i], SpecialTokens::kParse), expected[i].get<std::vector<int32_t>>())
        << nlohmann::json(texts[2 * i]);
  }
}

TEST_F(SmolLm2, KnowsItsTokens) {
  EXPECT_EQ(tokenizer_->vocab_size(), 49152);
  EXPECT_EQ(tokenizer_->id_of("<|im_end|>"), 2);
  EXPECT_EQ(tokenizer_->bos_id(), 1);
  EXPECT_EQ(tokenizer_->eos_id(), 2);
  EXPECT_EQ(tokenizer_->token_of(260), "\xC4\xA0the");
  EXPECT_TRUE(tokenizer_->is_special(2));
}

TEST_F(SmolLm2, EncodesAChat) {
  const std::vector<ChatMessage> messages = {{"user", "What is 17 + 25? Answer with a number."}};
  const std::vector<int32_t> expected = {1,    9690,  198,  2683, 359,  253, 5356,  5646, 11173, 3365, 3511,
                                         308,  34519, 28,   7018, 411,  407, 19712, 8182, 2,     198,  1,
                                         4093, 198,   1780, 314,  216,  33,  39,    1232, 216,   34,   37,
                                         47,   19842, 351,  253,  1230, 30,  2,     198};
  EXPECT_EQ(tokenizer_->encode_chat(tokenizer_->chat_template(), messages, false), expected);
}

}  // namespace
}  // namespace troupe
