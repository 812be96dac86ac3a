// The vocabulary is the one that the `tokenizers` library trains (tests/oracles/text/make_bpe_training.py).
#include "core/text/bpe_trainer.hpp"

#include <gtest/gtest.h>

#include "core/data/mixing.hpp"
#include "core/io/sha256.hpp"
#include "core/text/unicode.hpp"
#include "tests/core/text/fixtures.hpp"

namespace troupe {
namespace {

Tokenizer trained(const std::vector<std::string>& texts, const BpeTrainingOptions& options) {
  size_t at = 0;
  return train_bpe(
      [&]() -> std::optional<std::string_view> {
        return at < texts.size() ? std::optional<std::string_view>(texts[at++]) : std::nullopt;
      },
      options);
}

// As make_bpe_training.py makes them.
std::vector<std::string> made_texts(const nlohmann::json& rule) {
  std::vector<std::string> letters;
  const std::string spelled = rule["letters"];
  for (size_t at = 0; at < spelled.size(); at += letters.back().size())
    letters.push_back(spelled.substr(at, utf8_size(std::string_view(spelled).substr(at))));
  std::vector<std::string> texts;
  uint64_t at = rule["seed"];
  for (int i = 0; i < rule["texts"].get<int>(); ++i) {
    std::string& text = texts.emplace_back();
    for (int word = 0; word < rule["words"].get<int>(); ++word) {
      const uint64_t length = 1 + mixed(++at) % rule["longest"].get<uint64_t>();
      for (uint64_t letter = 0; letter < length; ++letter) text += letters[mixed(++at) % letters.size()];
      text += ' ';
    }
  }
  return texts;
}

BpeTrainingOptions options_of(const nlohmann::json& oracle) {
  BpeTrainingOptions options;
  options.vocab_size = oracle["vocab_size"];
  options.min_frequency = oracle.value("min_frequency", 0);
  if (oracle.contains("special")) options.special_tokens = oracle["special"].get<std::vector<std::string>>();
  return options;
}

TEST(BpeTrainer, LearnsWhatTheLibraryLearns) {
  const nlohmann::json oracles = read_oracle("bpe_training.json");
  EXPECT_GE(oracles.size(), 14u);
  for (const nlohmann::json& oracle : oracles) {
    const std::string name = oracle["name"];
    const std::vector<std::string> texts = oracle.contains("file")   ? oracle_texts()
                                           : oracle.contains("made") ? made_texts(oracle["made"])
                                                                     : oracle["texts"].get<std::vector<std::string>>();
    const Tokenizer tokenizer = trained(texts, options_of(oracle));
    const TemporaryFolder folder;
    tokenizer.save(folder.path());
    const std::string saved = read_bytes(folder.path() / "tokenizer.json");
    const nlohmann::json merges = nlohmann::json::parse(saved)["model"]["merges"];
    const nlohmann::json& expected = oracle["merges"];
    ASSERT_GE(merges.size(), expected.size()) << name;
    for (size_t i = 0; i < expected.size(); ++i)
      ASSERT_EQ(merges[i][0].get<std::string>() + " " + merges[i][1].get<std::string>(), expected[i])
          << name << " " << i;
    EXPECT_EQ(tokenizer.vocab_size(), oracle["num_tokens"]) << name;
    Sha256 digest;
    digest.update(saved);
    EXPECT_EQ(digest.finish_hex(), oracle["tokenizer_sha256"]) << name;
  }
}

TEST(BpeTrainer, NoMergeMakesASpecialToken) {
  const std::vector<std::string> texts(500, "<|im_end|> <|im_end|>a <|endoftext|>");
  const Tokenizer tokenizer = trained(texts, {.vocab_size = 400});
  EXPECT_EQ(tokenizer.eos_id(), 2);
  const auto ids = tokenizer.encode("<|im_end|>");
  EXPECT_GT(ids.size(), 1u);
  EXPECT_EQ(tokenizer.decode(ids, false), "<|im_end|>");
  EXPECT_EQ(tokenizer.encode("<|im_end|>", SpecialTokens::kParse), (std::vector<int32_t>{2}));
}

TEST(BpeTrainer, RolesAlphabetAndTemplateAreMiniMinds) {
  const Tokenizer tokenizer = trained({"abc"}, {.vocab_size = 260, .chat_template = kChatMlTemplate});
  EXPECT_EQ(tokenizer.pad_id(), 0);
  EXPECT_EQ(tokenizer.unk_id(), 0);
  EXPECT_EQ(tokenizer.bos_id(), 1);
  EXPECT_EQ(tokenizer.eos_id(), 2);
  EXPECT_EQ(tokenizer.encode("\n"), (std::vector<int32_t>{201}));
  EXPECT_EQ(tokenizer.encode(" "), (std::vector<int32_t>{223}));
  const Tokenizer minimind =
      Tokenizer::from_folder(std::filesystem::path(TROUPE_SOURCE_DIR) / "tests/oracles/data/text/minimind");
  const std::vector<ChatMessage> chats[] = {{{"user", "hi", ""}},
                                            {{"system", "S", ""}, {"user", "a", ""}, {"assistant", "b", ""}},
                                            {{"user", "a", ""}, {"system", "late", ""}, {"user", "c", ""}}};
  for (const auto& chat : chats)
    for (const bool prompt : {false, true}) {
      EXPECT_EQ(tokenizer.chat_template().render(chat, prompt), minimind.chat_template().render(chat, prompt));
      const TemplateVariables no_thinking = {{"enable_thinking", false}};
      EXPECT_EQ(tokenizer.chat_template().render(chat, prompt, no_thinking),
                minimind.chat_template().render(chat, prompt, no_thinking));
    }
}

TEST(BpeTrainer, RefusesNoRoomAndWrongSpecialTokens) {
  EXPECT_THROW(trained({"a"}, {.vocab_size = 258}), std::invalid_argument);
  EXPECT_THROW(trained({"a"}, {.vocab_size = 300, .special_tokens = {"<a>", "<a>"}}), std::invalid_argument);
  EXPECT_THROW(trained({"a"}, {.vocab_size = 300, .special_tokens = {"a"}}), std::invalid_argument);
  EXPECT_THROW(trained({"a"}, {.vocab_size = 300, .special_tokens = {""}}), std::invalid_argument);
  EXPECT_EQ(trained({"a\xFF\xFE b"}, {.vocab_size = 300}).decode(std::vector<int32_t>{223}, false), " ");
}

TEST(BpeTrainer, OpensInTransformersWithTheSameIds) {
  if (std::system(TROUPE_PYTHON " -c 'import transformers' >/dev/null 2>&1") != 0)
    GTEST_SKIP() << "no transformers in " TROUPE_PYTHON;
  const Tokenizer tokenizer = trained(oracle_texts(), {.vocab_size = 900, .chat_template = kChatMlTemplate});
  const TemporaryFolder folder;
  tokenizer.save(folder.path() / "trained");
  nlohmann::json ids = nlohmann::json::array();
  for (const std::string& text : oracle_texts()) ids.push_back(tokenizer.encode(text, SpecialTokens::kParse));
  const std::vector<ChatMessage> chat = {{"user", "hello", ""}, {"assistant", "you", ""}};
  const nlohmann::json expected = {{{"folder", "trained"},
                                    {"ids", ids},
                                    {"with_bos", tokenizer.encode_with_bos("hello")},
                                    {"chat", tokenizer.encode_chat(tokenizer.chat_template(), chat, false)},
                                    {"bos", 1},
                                    {"eos", 2},
                                    {"pad", 0}}};
  folder.write("expected.json", nlohmann::json{{"texts", oracle_texts()}, {"tokenizers", expected}}.dump());
  const std::string script = std::string(TROUPE_SOURCE_DIR) + "/tests/core/text/open_in_transformers.py";
  EXPECT_EQ(std::system((TROUPE_PYTHON " '" + script + "' '" + folder.path().string() + "'").c_str()), 0);
}

}  // namespace
}  // namespace troupe
