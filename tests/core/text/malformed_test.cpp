// Files that are wrong: one clear error each, and never a crash.
#include <gtest/gtest.h>

#include <random>

#include "tests/core/text/fixtures.hpp"
#include "tests/support/fuzz.hpp"

namespace troupe {
namespace {

using nlohmann::json;

std::string error_of(const std::string& tokenizer_json) {
  try {
    tokenizer_of_json(tokenizer_json);
  } catch (const std::runtime_error& error) {
    const std::string message = error.what();
    const size_t name = message.find("tokenizer.json: ");
    return name == std::string::npos ? message : message.substr(name);
  }
  return "no error";
}

// The error of a good tokenizer with one change.
template <typename Change>
std::string error_with(Change change) {
  json tokenizer = read_oracle("tokenizers/smollm.json")["tokenizer"];
  change(tokenizer);
  return error_of(tokenizer.dump());
}

TEST(MalformedTokenizer, NamesTheUnsupportedComponent) {
  EXPECT_EQ(error_with([](json&) {}), "no error");
  EXPECT_EQ(error_with([](json& t) { t["model"]["type"] = "Unigram"; }),
            "tokenizer.json: model: model 'Unigram' is not supported");
  EXPECT_EQ(error_with([](json& t) {
              t["normalizer"] = {{"type", "BertNormalizer"}};
            }),
            "tokenizer.json: normalizer: normalizer 'BertNormalizer' is not supported");
  EXPECT_EQ(error_with([](json& t) {
              t["pre_tokenizer"]["pretokenizers"][0] = {{"type", "Metaspace"}};
            }),
            "tokenizer.json: pre_tokenizer.pretokenizers[0]: pre-tokenizer 'Metaspace' is not supported");
  EXPECT_EQ(error_with([](json& t) {
              t["decoder"] = {{"type", "WordPiece"}};
            }),
            "tokenizer.json: decoder: decoder 'WordPiece' is not supported");
  EXPECT_EQ(error_with([](json& t) {
              t["post_processor"] = {{"type", "BertProcessing"}};
            }),
            "tokenizer.json: post_processor: post-processor 'BertProcessing' is not supported");
  EXPECT_EQ(error_with([](json& t) { t["model"]["continuing_subword_prefix"] = "##"; }),
            "tokenizer.json: model.continuing_subword_prefix: is not supported");
  EXPECT_EQ(error_with([](json& t) { t["model"]["dropout"] = 0.1; }),
            "tokenizer.json: model: dropout is not supported");
}

TEST(MalformedTokenizer, NamesTheValueAtFault) {
  EXPECT_EQ(error_with([](json& t) { t.erase("model"); }), "tokenizer.json: key 'model' is missing");
  EXPECT_EQ(error_with([](json& t) { t["decoder"] = nullptr; }), "tokenizer.json: key 'decoder' is missing");
  EXPECT_EQ(error_with([](json& t) { t["model"]["vocab"]["new"] = -1; }),
            "tokenizer.json: model.vocab 'new': expected an integer from 0 to 68183");
  EXPECT_EQ(error_with([](json& t) { t["model"]["vocab"]["new"] = 4'000'000'000; }),
            "tokenizer.json: model.vocab 'new': expected an integer from 0 to 68183");
  EXPECT_EQ(error_with([](json& t) { t["model"]["vocab"]["zzz"] = 5; }).substr(0, 51),
            "tokenizer.json: model.vocab: id 5 belongs to both '");
  EXPECT_EQ(error_with([](json& t) {
              t["model"]["merges"][0] = {"q", "zzz"};
            }),
            "tokenizer.json: model: merge 0 ('q' + 'zzz'): token 'zzz' is not in the vocabulary");
  EXPECT_EQ(error_with([](json& t) { t["model"]["merges"][3] = "a b c"; }),
            "tokenizer.json: model.merges[3]: expected two tokens and one space");
  EXPECT_EQ(error_with([](json& t) { t["model"]["merges"][3] = 7; }),
            "tokenizer.json: model.merges[3]: expected a string");
  EXPECT_EQ(error_with([](json& t) { t["model"]["unk_token"] = "<none>"; }),
            "tokenizer.json: model: unk_token '<none>' is not in the vocabulary");
  EXPECT_EQ(error_with([](json& t) { t["added_tokens"][1]["id"] = 7; }),
            "tokenizer.json: added token '<|im_start|>' has id 7 but the vocabulary says 1");
  EXPECT_EQ(error_with([](json& t) { t["added_tokens"][1]["content"] = "<|im_end|>"; }),
            "tokenizer.json: added token '<|im_end|>' is given twice");
  EXPECT_EQ(error_with([](json& t) { t["added_tokens"][1]["content"] = ""; }),
            "tokenizer.json: added token 1 is empty");
  EXPECT_EQ(error_with([](json& t) { t["added_tokens"][1]["special"] = 1; }),
            "tokenizer.json: added_tokens[1].special: expected true or false");
  EXPECT_EQ(error_with([](json& t) {
              t["pre_tokenizer"] = {{"type", "Split"}, {"pattern", {{"Regex", "(a"}}}, {"behavior", "Isolated"}};
            }),
            "tokenizer.json: pre_tokenizer.pattern: regular expression '(a' at offset 2: missing closing parenthesis");
}

TEST(MalformedTokenizer, LetsNoOrdinaryTextBecomeASpecialToken) {
  EXPECT_EQ(error_with([](json& t) {
              t["added_tokens"][0]["content"] = "a";
              t["added_tokens"][0]["id"] = t["model"]["vocab"]["a"];
            }),
            "tokenizer.json: special token 'a' would be produced from ordinary text by a single character");
  EXPECT_EQ(error_with([](json& t) {
              const auto merge = t["model"]["merges"][0];
              const std::string token = merge[0].get<std::string>() + merge[1].get<std::string>();
              t["added_tokens"][0]["content"] = token;
              t["added_tokens"][0]["id"] = t["model"]["vocab"][token];
            }).substr(0, 29),
            "tokenizer.json: special token");
  json bytes = read_oracle("tokenizers/byte_fallback.json")["tokenizer"];
  bytes["added_tokens"][0]["content"] = "<0x41>";
  bytes["added_tokens"][0]["id"] = bytes["model"]["vocab"]["<0x41>"];
  EXPECT_EQ(error_of(bytes.dump()),
            "tokenizer.json: special token '<0x41>' would be produced from ordinary text by a single byte");
}

// Where words that are tokens need no merges, a split rule may cut out a special token's spelling as a word.
TEST(MalformedTokenizer, NoWholeWordBecomesASpecialToken) {
  json tokenizer = read_oracle("tokenizers/llama3.json")["tokenizer"];
  ASSERT_TRUE(tokenizer["model"]["ignore_merges"]);
  ASSERT_TRUE(tokenizer["model"]["vocab"].contains("<|eot_id|>"));
  tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "\\S+|\\s+";
  const Tokenizer splits = tokenizer_of_json(tokenizer.dump());
  const std::vector<int32_t> ids = splits.encode("it <|eot_id|> is");
  EXPECT_TRUE(std::ranges::none_of(ids, [&](int32_t id) { return splits.is_special(id); }));
  EXPECT_EQ(splits.decode(ids, true), "it <|eot_id|> is");
  const std::vector<int32_t> parsed = splits.encode("<|eot_id|>", SpecialTokens::kParse);
  ASSERT_EQ(parsed.size(), 1U);
  EXPECT_TRUE(splits.is_special(parsed[0]));
}

TEST(MalformedTokenizer, NeverCrashesOnATruncatedFile) {
  const std::string whole = read_oracle("tokenizers/llama3.json")["tokenizer"].dump();
  for (size_t size = 0; size < whole.size(); size += 1 + size / 40) {
    EXPECT_NE(error_of(whole.substr(0, size)), "no error") << size;
  }
}

// Loads what loads and uses it; any exception will do, a crash or a hang will not. Only the model's own unknown token
// may stand for what has no token.
void use(const std::string& tokenizer_json) {
  try {
    const Tokenizer tokenizer = tokenizer_of_json(tokenizer_json);
    const json model = json::parse(tokenizer_json).at("model");
    const std::string unknown = model.contains("unk_token") && model["unk_token"].is_string() ? model["unk_token"] : "";
    for (const char* text : {"Hello  w\xC3\xB6rld 123\n\n<|eot_id|> it's", "\xE4\xBD\xA0\xE5\xA5\xBD", ""}) {
      const auto ids = tokenizer.encode_with_bos(text, SpecialTokens::kParse);
      tokenizer.decode(ids, true);
      for (const int32_t id : tokenizer.encode(text))
        ASSERT_FALSE(tokenizer.is_special(id) && tokenizer.token_of(id) != unknown) << tokenizer.token_of(id);
    }
  } catch (const std::exception&) {
  }
}

TEST(MalformedTokenizer, NeverCrashesOnMutatedBytes) {
  std::mt19937 random(static_cast<uint32_t>(fuzz::seed(11)));
  for (const char* name : {"llama3", "odd_tokens", "byte_fallback"}) {
    json tokenizer = read_oracle(std::string("tokenizers/") + name + ".json")["tokenizer"];
    tokenizer["model"]["merges"].erase(tokenizer["model"]["merges"].begin() + 40, tokenizer["model"]["merges"].end());
    const std::string whole = tokenizer.dump();
    // The components stand at both ends; the vocabulary between them is much longer and less interesting.
    for (uint64_t i = fuzz::inputs(200); i > 0; --i) {
      std::string mutated = whole;
      for (uint32_t n = 1 + random() % 3; n > 0; --n) {
        const size_t near_an_end = random() % 2 == 0 ? random() % 3000 : mutated.size() - 1 - random() % 1500;
        mutated[near_an_end] = "\"{}[]:,0123456789-+eaxtrufls\\ \xFF\x01"[random() % 32];
      }
      use(mutated);
    }
  }
}

// A random place in a JSON document.
json& random_place(json& document, std::mt19937& random) {
  json* at = &document;
  while (at->is_structured() && !at->empty() && (at == &document || random() % 4 != 0)) {
    auto child = at->begin();
    std::advance(child, random() % std::min<size_t>(at->size(), 20));
    at = &*child;
  }
  return *at;
}

TEST(MalformedTokenizer, NeverCrashesOnSwappedValues) {
  std::mt19937 random(static_cast<uint32_t>(fuzz::seed(12)));
  const std::vector<json> values = {nullptr,
                                    true,
                                    -1,
                                    0,
                                    1e300,
                                    18446744073709551615u,
                                    "",
                                    "x",
                                    json::array(),
                                    "\xC4\xA0",
                                    json::object(),
                                    {1, 2},
                                    {{"type", "Sequence"}},
                                    "(a*)*b",
                                    "Sequence",
                                    300,
                                    "<|eot_id|>"};
  for (const char* name : {"llama3", "qwen2", "odd_tokens", "byte_fallback"}) {
    json tokenizer = read_oracle(std::string("tokenizers/") + name + ".json")["tokenizer"];
    tokenizer["model"]["merges"].erase(tokenizer["model"]["merges"].begin() + 40, tokenizer["model"]["merges"].end());
    for (uint64_t i = fuzz::inputs(200); i > 0; --i) {
      json mutated = tokenizer;
      for (uint32_t n = 1 + random() % 2; n > 0; --n) random_place(mutated, random) = values[random() % values.size()];
      use(mutated.dump());
    }
  }
}

TEST(MalformedTokenizer, SurvivesDeepNesting) {
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += R"({"type":"Sequence","pretokenizers":[)";
  EXPECT_NE(error_of(R"({"pre_tokenizer":)" + deep), "no error");
  json nested = {{"type", "Digits"}, {"individual_digits", true}};
  for (int i = 0; i < 50; ++i) nested = {{"type", "Sequence"}, {"pretokenizers", {nested}}};
  EXPECT_NE(error_with([&](json& t) { t["pre_tokenizer"] = nested; }).find("too many nested Sequences"),
            std::string::npos);
}

TEST(MalformedTokenizer, NamesWhatIsWrongInTheFilesBesideIt) {
  const auto error_beside = [](const std::string& name, const std::string& bytes) {
    const TemporaryFolder folder;
    folder.write("tokenizer.json", read_oracle("tokenizers/smollm.json")["tokenizer"].dump());
    folder.write(name, bytes);
    try {
      Tokenizer::from_folder(folder.path());
    } catch (const std::runtime_error& error) {
      return std::string(error.what()).substr(folder.path().string().size() + 1);
    }
    return std::string("no error");
  };
  EXPECT_EQ(error_beside("tokenizer_config.json", R"({"bos_token": 5})"),
            "tokenizer_config.json: bos_token: expected a string");
  EXPECT_EQ(error_beside("tokenizer_config.json", R"({"eos_token": "<|nope|>"})"),
            "tokenizer_config.json: eos_token '<|nope|>' is not in the vocabulary");
  EXPECT_EQ(error_beside("tokenizer_config.json", "[1]"), "tokenizer_config.json: expected a JSON object");
  EXPECT_EQ(error_beside("generation_config.json", R"({"eos_token_id": [1, -2]})"),
            "generation_config.json: eos_token_id[1]: expected an integer from 0 to 2147483646");
  const TemporaryFolder empty;
  EXPECT_THROW(Tokenizer::from_folder(empty.path()), std::runtime_error);
  EXPECT_THROW(Tokenizer::from_folder(empty.path() / "nothing"), std::runtime_error);
}

TEST(MalformedTemplate, NeverCrashesOrHangsWhenMutated) {
  std::mt19937 random(static_cast<uint32_t>(fuzz::seed(13)));
  const std::vector<ChatMessage> messages = {{"system", "s"}, {"user", "<think>x</think> y"}, {"assistant", "z"}};
  ChatTemplateOptions options;
  options.max_steps = 20'000;
  options.max_output_bytes = 1 << 20;
  const std::vector<std::string> parts = {
      "{%",      "%}",    "{{",          "}}",          "-",      "(",    ")",    "[",          "]",        "'",
      "\"",      "|",     "if ",         "for ",        "endfor", "set ", " in ", "loop.index", "messages", "[::-1]",
      "**",      "*9",    "~",           "range(9)",    "{#",     "#}",   "\n",   "macro f(x)", "endif",    "else",
      "|tojson", "|list", ".split('a')", "namespace()", "\xC3",   "elif", "not ", "is ",        ":",        ","};
  int num_rendered = 0;
  for (const auto& family : read_oracle("chat_templates.json")) {
    const std::string whole = family["source"];
    for (uint64_t i = fuzz::inputs(200); i > 0; --i) {
      std::string mutated = whole;
      for (uint32_t n = 1 + random() % 4; n > 0; --n) {
        const size_t at = random() % mutated.size();
        const size_t length = std::min<size_t>(random() % 12, mutated.size() - at);
        mutated.replace(at, length, parts[random() % parts.size()]);
      }
      try {
        ChatTemplate(mutated, "<s>", "</s>", options).render_marked(messages, true);
        ++num_rendered;
      } catch (const std::exception&) {
      }
    }
    for (size_t size = 0; size < whole.size(); size += 7) {
      try {
        ChatTemplate(whole.substr(0, size), "<s>", "</s>", options).render(messages, true);
      } catch (const std::exception&) {
      }
    }
  }
  EXPECT_GT(num_rendered, 100) << "the mutations should leave some templates whole";
}

}  // namespace
}  // namespace troupe
