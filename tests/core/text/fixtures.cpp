#include "tests/core/text/fixtures.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <sstream>

namespace troupe {

TemporaryFolder::TemporaryFolder() {
  static std::atomic<int> count = 0;
  path_ = std::filesystem::temp_directory_path() /
          ("troupe_text_" + std::to_string(getpid()) + "_" + std::to_string(++count));
  std::filesystem::create_directories(path_);
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void TemporaryFolder::write(const std::string& name, const std::string& bytes) const {
  std::ofstream(path_ / name, std::ios::binary) << bytes;
}

std::string read_bytes(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in) << path;
  std::ostringstream bytes;
  bytes << in.rdbuf();
  return bytes.str();
}

nlohmann::json read_oracle(const std::string& name) {
  return nlohmann::json::parse(read_bytes(std::filesystem::path(TROUPE_SOURCE_DIR) / "tests/oracles/data/text" / name));
}

std::vector<std::string> oracle_texts() {
  return read_oracle("texts.json");
}

Tokenizer tokenizer_of_json(const std::string& tokenizer_json) {
  const TemporaryFolder folder;
  folder.write("tokenizer.json", tokenizer_json);
  return Tokenizer::from_folder(folder.path());
}

Tokenizer tokenizer_of(const nlohmann::json& oracle) {
  return tokenizer_of_json(oracle["tokenizer"].dump());
}

GgufVocabulary gguf_of(const nlohmann::json& oracle, const std::string& pre) {
  GgufVocabulary vocabulary;
  vocabulary.source = "test.gguf";
  vocabulary.model = "gpt2";
  vocabulary.pre = pre;
  const nlohmann::json& tokenizer = oracle["tokenizer"];
  std::map<int, std::string> tokens;
  for (const auto& [token, id] : tokenizer["model"]["vocab"].items()) tokens[id] = token;
  for (const auto& token : tokenizer["added_tokens"]) tokens[token["id"]] = token["content"];
  for (const auto& [id, token] : tokens) {
    EXPECT_EQ(static_cast<size_t>(id), vocabulary.tokens.size());
    vocabulary.tokens.push_back(token);
    vocabulary.token_types.push_back(1);
  }
  for (const auto& token : tokenizer["added_tokens"]) {
    vocabulary.token_types[token["id"].get<size_t>()] = token["special"].get<bool>() ? 3 : 4;
  }
  for (const auto& merge : tokenizer["model"]["merges"]) {
    vocabulary.merges.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
  }
  return vocabulary;
}

}  // namespace troupe
