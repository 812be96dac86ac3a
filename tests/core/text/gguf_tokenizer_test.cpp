// Tokenizers from GGUF vocabularies: the split rules, and what a vocabulary may not say.
#include <gtest/gtest.h>

#include "tests/core/text/fixtures.hpp"

namespace troupe {
namespace {

using Ids = std::vector<int32_t>;

nlohmann::json oracle_of(const std::string& name) {
  return read_oracle("tokenizers/" + name + ".json");
}

struct Rule {
  const char* pre;
  const char* oracle;
};

class GgufSplitRule : public testing::TestWithParam<Rule> {};

TEST_P(GgufSplitRule, EncodesAsTheTokenizerItWasMadeFrom) {
  const nlohmann::json oracle = oracle_of(GetParam().oracle);
  const Tokenizer tokenizer = Tokenizer::from_gguf(gguf_of(oracle, GetParam().pre));
  const std::vector<std::string> texts = oracle_texts();
  for (size_t i = 0; i < texts.size(); ++i) {
    const nlohmann::json& expected = oracle["cases"][i];
    const Ids ids = expected["ids"];
    EXPECT_EQ(tokenizer.encode(texts[i], SpecialTokens::kParse), ids) << nlohmann::json(texts[i]);
    EXPECT_EQ(tokenizer.encode(texts[i]), expected.value("as_text", ids));
    EXPECT_EQ(tokenizer.decode(ids, false), expected.value("decoded", texts[i]));
  }
}

INSTANTIATE_TEST_SUITE_P(Rules, GgufSplitRule,
                         testing::Values(Rule{"gpt-2", "gpt2"}, Rule{"", "gpt2"}, Rule{"default", "gpt2"},
                                         Rule{"smollm", "smollm"}, Rule{"llama-bpe", "llama3"}, Rule{"qwen2", "qwen2"},
                                         Rule{"deepseek-r1-qwen", "qwen2"}, Rule{"deepseek-coder", "deepseek_coder"},
                                         Rule{"deepseek-v3", "deepseek_v3"}),
                         [](const auto& info) {
                           return std::string(info.param.oracle) + "_" + std::to_string(info.index);
                         });

TEST(GgufTokenizer, SplitsAsDeepSeekLlm) {
  const Tokenizer tokenizer = Tokenizer::from_gguf(gguf_of(oracle_of("deepseek_v3"), "deepseek-llm"));
  for (const std::string& text : oracle_texts()) EXPECT_EQ(tokenizer.decode(tokenizer.encode(text), false), text);
}

TEST(GgufTokenizer, TakesRolesAndBos) {
  GgufVocabulary vocabulary = gguf_of(oracle_of("llama3"), "llama-bpe");
  vocabulary.bos_token_id = 0;
  vocabulary.eos_token_id = 4;
  vocabulary.chat_template = "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}";
  const Tokenizer tokenizer = Tokenizer::from_gguf(vocabulary);
  EXPECT_EQ(tokenizer.bos_id(), 0);
  EXPECT_EQ(tokenizer.eos_id(), 4);
  EXPECT_EQ(tokenizer.pad_id(), std::nullopt);
  EXPECT_EQ(tokenizer.stop_ids(), Ids{4});
  EXPECT_EQ(tokenizer.encode_with_bos("").size(), 1u) << "Llama 3 adds bos where the file does not say";
  const std::vector<ChatMessage> chat = {{"user", ""}};
  EXPECT_EQ(tokenizer.encode_chat(tokenizer.chat_template(), chat, false), (Ids{0, 4}));
  vocabulary.add_bos_token = false;
  EXPECT_TRUE(Tokenizer::from_gguf(vocabulary).encode_with_bos("").empty());
}

TEST(GgufTokenizer, ProtectsBosAndEosWhateverTheirType) {
  GgufVocabulary vocabulary = gguf_of(oracle_of("smollm"), "smollm");
  vocabulary.token_types.clear();
  vocabulary.bos_token_id = 1;
  vocabulary.eos_token_id = 2;
  const Tokenizer tokenizer = Tokenizer::from_gguf(vocabulary);
  EXPECT_TRUE(tokenizer.is_special(1));
  EXPECT_FALSE(tokenizer.is_special(0));
  EXPECT_EQ(tokenizer.encode("<|im_end|>", SpecialTokens::kParse), Ids{2});
  for (const int32_t id : tokenizer.encode("<|im_end|>")) EXPECT_NE(id, 2);
}

std::string error_of(const GgufVocabulary& vocabulary) {
  try {
    Tokenizer::from_gguf(vocabulary);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "no error";
}

TEST(GgufTokenizer, RefusesWhatIsWrongByItsKey) {
  const GgufVocabulary good = gguf_of(oracle_of("smollm"), "smollm");
  const auto error_with = [&](auto change) {
    GgufVocabulary bad = good;
    change(bad);
    return error_of(bad);
  };
  using V = GgufVocabulary;
  EXPECT_EQ(error_with([](V&) {}), "no error");
  EXPECT_EQ(error_with([](V& v) { v.model = "llama"; }),
            "test.gguf: tokenizer.ggml.model: 'llama' is not supported; byte-level BPE is 'gpt2'");
  EXPECT_EQ(error_with([](V& v) { v.pre = "tekken"; }),
            "test.gguf: tokenizer.ggml.pre: the split rule 'tekken' is not supported");
  EXPECT_EQ(error_with([](V& v) { v.tokens.clear(); }), "test.gguf: tokenizer.ggml.tokens: is missing or empty");
  EXPECT_EQ(error_with([](V& v) { v.tokens[5] = v.tokens[6]; }),
            "test.gguf: tokenizer.ggml.tokens[6]: '" + good.tokens[6] + "' is there already");
  EXPECT_EQ(error_with([](V& v) { v.tokens[9] = "\xFF"; }), "test.gguf: tokenizer.ggml.tokens[9]: is not UTF-8");
  EXPECT_EQ(error_with([](V& v) { v.tokens[9] = ""; }), "test.gguf: tokenizer.ggml.tokens[9]: is empty");
  EXPECT_EQ(error_with([](V& v) { v.token_types.pop_back(); }),
            "test.gguf: tokenizer.ggml.token_type: expected 661 types, not 660");
  EXPECT_EQ(error_with([](V& v) { v.token_types[3] = 6; }),
            "test.gguf: tokenizer.ggml.token_type[3]: type 6 is not supported in byte-level BPE");
  EXPECT_EQ(error_with([](V& v) { v.merges[2] = "ab"; }),
            "test.gguf: tokenizer.ggml.merges[2]: expected two tokens and one space");
  EXPECT_EQ(error_with([](V& v) { v.merges[2] = "zq qz"; }),
            "test.gguf: model: merge 2 ('zq' + 'qz'): token 'zq' is not in the vocabulary");
  EXPECT_EQ(error_with([](V& v) { v.bos_token_id = 661; }),
            "test.gguf: tokenizer.ggml.bos_token_id: id 661 is outside the vocabulary of 661");
  EXPECT_EQ(error_with([](V& v) { v.eos_token_id = -1; }),
            "test.gguf: tokenizer.ggml.eos_token_id: id -1 is outside the vocabulary of 661");
  EXPECT_EQ(error_with([](V& v) { v.add_bos_token = true; }),
            "test.gguf: tokenizer.ggml.add_bos_token: is true, but there is no bos token");
  EXPECT_EQ(error_with([](V& v) { v.chat_template = "\xC3"; }), "test.gguf: tokenizer.chat_template: is not UTF-8");
}

}  // namespace
}  // namespace troupe
