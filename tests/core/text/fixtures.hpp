// The oracle files of tests/oracles/data/text, and temporary folders.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/text/tokenizer.hpp"

namespace troupe {

// A folder of its own for one test, removed at the end.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  const std::filesystem::path& path() const { return path_; }
  void write(const std::string& name, const std::string& bytes) const;

 private:
  std::filesystem::path path_;
};

std::string read_bytes(const std::filesystem::path& path);
nlohmann::json read_oracle(const std::string& name);
std::vector<std::string> oracle_texts();
// The tokenizer inside an oracle file.
Tokenizer tokenizer_of(const nlohmann::json& oracle);
Tokenizer tokenizer_of_json(const std::string& tokenizer_json);
// A GGUF vocabulary with the tokens, merges and roles of an oracle's tokenizer.
GgufVocabulary gguf_of(const nlohmann::json& oracle, const std::string& pre);

}  // namespace troupe
