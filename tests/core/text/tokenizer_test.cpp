// What a tokenizer promises beyond equality with the reference.
#include "core/text/tokenizer.hpp"

#include <gtest/gtest.h>

#include <ctime>
#include <random>
#include <thread>

#include "core/text/unicode.hpp"
#include "tests/core/text/fixtures.hpp"

namespace troupe {
namespace {

using Ids = std::vector<int32_t>;

nlohmann::json oracle_of(const std::string& name) {
  return read_oracle("tokenizers/" + name + ".json");
}

std::string random_text(std::mt19937& random) {
  std::string text;
  for (uint32_t i = random() % 40; i > 0; --i) {
    const uint32_t kind = random() % 8;
    uint32_t c = kind < 4 ? random() % 0x80 : kind < 6 ? random() % 0x3000 : random() % 0x110000;
    if (c >= 0xD800 && c < 0xE000) c = ' ';
    append_utf8(text, c);
  }
  return text;
}

TEST(Tokenizer, EncodesAsMiniMindDoes) {
  const Tokenizer minimind =
      Tokenizer::from_folder(std::filesystem::path(TROUPE_SOURCE_DIR) / "tests/oracles/data/text/minimind");
  const std::pair<const char*, std::vector<int32_t>> golden[] = {{"你好", {5134}},
                                                                 {"！", {2207}},
                                                                 {"hello", {5125, 338}},
                                                                 {"\n", {201}},
                                                                 {"<think>", {30, 450, 1573, 32}},
                                                                 {"</think>", {5540, 450, 1573, 32}},
                                                                 {"<answer>", {30, 662, 89, 275, 32}},
                                                                 {"</answer>", {5540, 662, 89, 275, 32}}};
  for (const auto& [text, ids] : golden) EXPECT_EQ(minimind.encode(text, SpecialTokens::kParse), ids) << text;
  EXPECT_EQ(minimind.vocab_size(), 6400);
}

TEST(Tokenizer, DecodesWhatItEncoded) {
  for (const char* name :
       {"gpt2", "smollm", "llama3", "deepseek_coder", "deepseek_v3", "split_next", "byte_fallback"}) {
    const Tokenizer tokenizer = tokenizer_of(oracle_of(name));
    std::mt19937 random(1);
    for (int i = 0; i < 2000; ++i) {
      const std::string text = random_text(random);
      for (const auto mode : {SpecialTokens::kAsText, SpecialTokens::kParse}) {
        ASSERT_EQ(tokenizer.decode(tokenizer.encode(text, mode), false), text) << name << " " << nlohmann::json(text);
      }
    }
  }
}

TEST(Tokenizer, FormsNoSpecialTokenFromText) {
  for (const char* name : {"gpt2", "smollm", "llama3", "qwen2", "deepseek_v3", "odd_tokens", "byte_fallback"}) {
    const Tokenizer tokenizer = tokenizer_of(oracle_of(name));
    for (const std::string& text : oracle_texts()) {
      for (const int32_t id : tokenizer.encode(text)) EXPECT_FALSE(tokenizer.is_special(id)) << name << " " << text;
    }
  }
}

TEST(Tokenizer, EncodesBrokenUtf8AsReplacementCharacters) {
  const Tokenizer tokenizer = tokenizer_of(oracle_of("smollm"));
  std::mt19937 random(2);
  for (int i = 0; i < 500; ++i) {
    std::string bytes;
    for (uint32_t n = random() % 30; n > 0; --n) bytes += static_cast<char>(random());
    EXPECT_EQ(tokenizer.encode(bytes), tokenizer.encode(to_valid_utf8(bytes)));
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(bytes), false), to_valid_utf8(bytes));
  }
}

TEST(Tokenizer, StreamsRandomIdsAsItDecodesThem) {
  for (const char* name : {"smollm", "llama3", "deepseek_v3", "byte_fallback"}) {
    const Tokenizer tokenizer = tokenizer_of(oracle_of(name));
    std::mt19937 random(3);
    StreamDecoder stream(tokenizer, true);
    for (int i = 0; i < 500; ++i) {
      Ids ids;
      for (uint32_t n = random() % 20; n > 0; --n)
        ids.push_back(static_cast<int32_t>(random()) % tokenizer.vocab_size());
      for (int32_t& id : ids) id = id < 0 ? -id : id;
      std::string text;
      for (const int32_t id : ids) {
        const std::string part = stream.push(id);
        ASSERT_TRUE(is_utf8(part));
        text += part;
      }
      ASSERT_EQ(text + stream.flush(), tokenizer.decode(ids, true)) << name;
    }
  }
}

TEST(Tokenizer, HoldsBackACharacterUntilItIsWhole) {
  const Tokenizer tokenizer = tokenizer_of(oracle_of("smollm"));
  const Ids ids = tokenizer.encode("\xF0\x9F\xA6\x84");  // a unicorn, in no merge of the training text
  ASSERT_GT(ids.size(), 1u);
  StreamDecoder stream(tokenizer, false);
  for (size_t i = 0; i + 1 < ids.size(); ++i) EXPECT_EQ(stream.push(ids[i]), "");
  EXPECT_EQ(stream.push(ids.back()), "\xF0\x9F\xA6\x84");
  EXPECT_EQ(stream.push(ids[0]), "");
  EXPECT_EQ(stream.flush(), "\xEF\xBF\xBD");
  EXPECT_EQ(stream.flush(), "");
}

TEST(Tokenizer, DecodesPaddingIdsToNothingAndRefusesNegativeOnes) {
  const Tokenizer tokenizer = tokenizer_of(oracle_of("smollm"));
  const Ids ids = tokenizer.encode("hi");
  Ids padded = ids;
  padded.push_back(tokenizer.vocab_size() + 5);
  EXPECT_EQ(tokenizer.decode(padded, false), "hi");
  EXPECT_THROW(tokenizer.decode(Ids{-1}, false), std::invalid_argument);
  EXPECT_THROW(tokenizer.token_of(tokenizer.vocab_size()), std::invalid_argument);
  EXPECT_THROW(tokenizer.token_of(-1), std::invalid_argument);
  EXPECT_FALSE(tokenizer.is_special(-1));
  EXPECT_EQ(tokenizer.id_of("no such token"), std::nullopt);
  EXPECT_EQ(tokenizer.token_of(*tokenizer.id_of("<|im_end|>")), "<|im_end|>");
}

TEST(Tokenizer, TakesLinearTimeOnLongWords) {
  const Tokenizer smollm = tokenizer_of(oracle_of("smollm"));
  const Tokenizer llama = tokenizer_of(oracle_of("llama3"));
  const Tokenizer whole = tokenizer_of(oracle_of("byte_fallback"));
  constexpr size_t kSize = 1'000'000;
  for (const char c : {'a', ' ', '\n', '1', '<'}) {
    for (const Tokenizer* tokenizer : {&smollm, &llama, &whole}) {
      const std::string text(kSize, c);
      const std::clock_t start = std::clock();
      const Ids ids = tokenizer->encode(text);
      // Processor time of this process; about 0.5 s unloaded, hours if it were quadratic.
      EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 10.0) << "'" << c << "'";
      EXPECT_EQ(tokenizer->decode(ids, false), text);
    }
  }
}

TEST(Tokenizer, ServesManyThreads) {
  const Tokenizer tokenizer = tokenizer_of(oracle_of("qwen2"));
  const std::vector<std::string> texts = oracle_texts();
  std::vector<Ids> expected;
  for (const std::string& text : texts) expected.push_back(tokenizer.encode(text));
  std::vector<std::thread> threads;
  std::atomic<int> num_wrong = 0;
  for (size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t, copy = tokenizer] {
      for (size_t i = 0; i < 4 * texts.size(); ++i) {
        const size_t at = (i * 7 + t) % texts.size();
        if (copy.encode(texts[at]) != expected[at]) ++num_wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(num_wrong, 0);
}

TEST(Tokenizer, FindsItsRolesInTheFilesBesideIt) {
  const TemporaryFolder folder;
  folder.write("tokenizer.json", oracle_of("llama3")["tokenizer"].dump());
  folder.write("tokenizer_config.json",
               R"({"bos_token": {"content": "<|begin_of_text|>", "lstrip": false}, "pad_token": null,
                   "chat_template": [{"name": "rag", "template": "no"}, {"name": "default", "template": "yes"}]})");
  folder.write("special_tokens_map.json", R"({"bos_token": "<|eot_id|>", "eos_token": "<|eot_id|>"})");
  folder.write("generation_config.json", R"({"eos_token_id": [1, 4, 1]})");
  const Tokenizer tokenizer = Tokenizer::from_folder(folder.path());
  EXPECT_EQ(tokenizer.bos_id(), 0) << "tokenizer_config.json comes first";
  EXPECT_EQ(tokenizer.eos_id(), 4);
  EXPECT_EQ(tokenizer.pad_id(), std::nullopt);
  EXPECT_EQ(tokenizer.unk_id(), std::nullopt);
  EXPECT_EQ(tokenizer.stop_ids(), (Ids{1, 4}));
  EXPECT_EQ(tokenizer.chat_template_source(), "yes");
  folder.write("chat_template.jinja", "file");
  EXPECT_EQ(Tokenizer::from_folder(folder.path()).chat_template_source(), "file");
}

TEST(Tokenizer, HasNoChatTemplateWithoutOne) {
  EXPECT_THROW(tokenizer_of(oracle_of("gpt2")).chat_template(), std::runtime_error);
}

}  // namespace
}  // namespace troupe
