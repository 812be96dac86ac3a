// Byte-pair encoding of one word: starts from its characters and applies, again and again, the best-ranked merge (of
// equal ones the leftmost) until none is left. Sennrich et al. 2016, https://aclanthology.org/P16-1162.
//
// Time n log n in the word's length. Threads: immutable but for the word cache, which locks itself.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/text/byte_level.hpp"

namespace troupe {

// A vocabulary as files hold it.
struct BpeVocabulary {
  std::vector<std::string> tokens;                          // by id; an empty string is an id without a token
  std::vector<std::pair<std::string, std::string>> merges;  // best first
  std::optional<std::string> unknown_token;                 // stands for a character without a token
  bool fuse_unknown = false;                                // neighbouring unknown characters become one unknown token
  bool byte_fallback = false;  // a character without a token becomes its bytes <0x00>..<0xFF>
  bool ignore_merges = false;  // a word that is a token itself is that token...
  std::vector<bool> special;   // ... unless it is one of these, by id (or empty: there are none)
};

class Bpe {
 public:
  // Throws std::invalid_argument naming the token or the merge at fault: a duplicate, or a merge of unknown tokens.
  explicit Bpe(BpeVocabulary vocabulary);
  ~Bpe();

  // Appends the word's ids. A character that has no token, where no unknown token or byte stands in for it, gives no id
  // (as in the reference library; SmolLM2's vocabulary lacks some control characters).
  void encode(std::string_view word, std::vector<int32_t>& ids) const;

  // "<0x0A>": what stands for a byte where byte_fallback is on.
  static std::string byte_token(uint8_t byte);

  std::optional<int32_t> id_of(std::string_view token) const;
  const std::vector<std::string>& tokens() const { return vocabulary_.tokens; }
  const BpeVocabulary& vocabulary() const { return vocabulary_; }

 private:
  struct Merge {
    int32_t rank;
    int32_t id;
  };
  class MergeTable;
  class WordCache;

  void index_tokens();
  void index_merges();
  std::optional<int32_t> id_of_character(std::string_view character, uint32_t code_point) const;
  void start_ids(std::string_view word, std::vector<int32_t>& ids) const;
  bool append_byte_tokens(std::string_view character, std::vector<int32_t>& ids) const;
  void merge(std::vector<int32_t>& ids) const;

  BpeVocabulary vocabulary_;
  std::unordered_map<std::string_view, int32_t> ids_;  // keys point into vocabulary_.tokens
  std::array<int32_t, kByteAlphabetEnd> low_character_ids_;
  std::array<int32_t, 256> byte_token_ids_;
  std::optional<int32_t> unknown_id_;
  std::unique_ptr<MergeTable> merges_;
  std::unique_ptr<WordCache> cache_;
};

}  // namespace troupe
