// What save() writes is the same tokenizer again: here, and in transformers (where scripts/test has installed it).
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/core/text/fixtures.hpp"

namespace troupe {
namespace {

using Ids = std::vector<int32_t>;

constexpr const char* kTemplate =
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}";

GgufVocabulary chat_vocabulary(const std::string& oracle, const std::string& pre) {
  GgufVocabulary vocabulary = gguf_of(read_oracle("tokenizers/" + oracle + ".json"), pre);
  vocabulary.bos_token_id = 0;
  vocabulary.eos_token_id = 1;
  vocabulary.padding_token_id = 1;
  vocabulary.chat_template = kTemplate;
  return vocabulary;
}

TEST(SavedTokenizer, CarriesTheFilesOfAFolderByteForByte) {
  const TemporaryFolder from;
  const TemporaryFolder to;
  const std::map<std::string, std::string> files = {
      {"tokenizer.json", read_oracle("tokenizers/smollm.json")["tokenizer"].dump(3)},
      {"tokenizer_config.json", "{ \"eos_token\" :  \"<|im_end|>\", \"unknown_key\": [1] }\n\n"},
      {"special_tokens_map.json", "{\"pad_token\": {\"content\": \"<|endoftext|>\"}}"},
      {"chat_template.jinja", "{{ messages[0].content }}\r\n"}};
  for (const auto& [name, bytes] : files) from.write(name, bytes);
  from.write("config.json", "{}");
  Tokenizer::from_folder(from.path()).save(to.path() / "new");
  for (const auto& [name, bytes] : files) EXPECT_EQ(read_bytes(to.path() / "new" / name), bytes) << name;
  EXPECT_FALSE(std::filesystem::exists(to.path() / "new" / "config.json")) << "not a tokenizer's file";
}

TEST(SavedTokenizer, FromGgufReadsBackAsTheSame) {
  for (const auto& [oracle, pre] :
       {std::pair{"smollm", "smollm"}, {"llama3", "llama-bpe"}, {"qwen2", "qwen2"}, {"deepseek_v3", "deepseek-v3"}}) {
    const Tokenizer original = Tokenizer::from_gguf(chat_vocabulary(oracle, pre));
    const TemporaryFolder folder;
    original.save(folder.path());
    const Tokenizer again = Tokenizer::from_folder(folder.path());
    EXPECT_EQ(again.vocab_size(), original.vocab_size());
    EXPECT_EQ(again.bos_id(), original.bos_id());
    EXPECT_EQ(again.eos_id(), original.eos_id());
    EXPECT_EQ(again.pad_id(), original.pad_id());
    EXPECT_EQ(again.chat_template_source(), kTemplate);
    for (const std::string& text : oracle_texts()) {
      EXPECT_EQ(again.encode_with_bos(text, SpecialTokens::kParse),
                original.encode_with_bos(text, SpecialTokens::kParse));
    }
  }
}

TEST(SavedTokenizer, OpensInTransformersWithTheSameIds) {
  if (std::system(TROUPE_PYTHON " -c 'import transformers' >/dev/null 2>&1") != 0)
    GTEST_SKIP() << "no transformers in " TROUPE_PYTHON;
  const TemporaryFolder folder;
  nlohmann::json expected = nlohmann::json::array();
  for (const auto& [oracle, pre] : {std::pair{"smollm", "smollm"},
                                    {"llama3", "llama-bpe"},
                                    {"qwen2", "qwen2"},
                                    {"deepseek_coder", "deepseek-coder"}}) {
    const Tokenizer tokenizer = Tokenizer::from_gguf(chat_vocabulary(oracle, pre));
    tokenizer.save(folder.path() / oracle);
    nlohmann::json ids = nlohmann::json::array();
    for (const std::string& text : oracle_texts()) ids.push_back(tokenizer.encode(text, SpecialTokens::kParse));
    const std::vector<ChatMessage> chat = {{"user", "hello"}, {"assistant", "you"}};
    expected.push_back({{"folder", oracle},
                        {"ids", ids},
                        {"with_bos", tokenizer.encode_with_bos("hello")},
                        {"chat", tokenizer.encode_chat(tokenizer.chat_template(), chat, false)},
                        {"bos", tokenizer.bos_id().value()},
                        {"eos", tokenizer.eos_id().value()},
                        {"pad", tokenizer.pad_id().value()}});
  }
  folder.write("expected.json", nlohmann::json{{"texts", oracle_texts()}, {"tokenizers", expected}}.dump());
  const std::string script = std::string(TROUPE_SOURCE_DIR) + "/tests/core/text/open_in_transformers.py";
  const std::string command = std::string(TROUPE_PYTHON) + " '" + script + "' '" + folder.path().string() + "'";
  EXPECT_EQ(std::system(command.c_str()), 0);
}

}  // namespace
}  // namespace troupe
