// What a Tokenizer is made of, and how it is put together from files. Internal to core/text.
#pragma once

#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/text/added_tokens.hpp"
#include "core/text/bpe.hpp"
#include "core/text/decoder.hpp"
#include "core/text/normalizer.hpp"
#include "core/text/pre_tokenizer.hpp"

namespace troupe {

// tokenizer.json, read and checked component by component.
struct TokenizerDescription {
  BpeVocabulary vocabulary;
  std::vector<AddedToken> added_tokens;
  std::vector<NormalizerStep> normalizer;
  std::vector<PreTokenizerStep> pre_tokenizer;
  DecoderRules decoder;
  std::vector<int32_t> prefix_ids;  // what the post-processor puts before a single text
  std::vector<int32_t> suffix_ids;  // and after it
};

// Throws std::runtime_error naming the file and the component. "truncation" and "padding" are a batch's matter and are
// not looked at.
TokenizerDescription read_tokenizer_json(const nlohmann::json& tokenizer, const std::string& file);

// The files beside tokenizer.json: which tokens play which role.
struct TokenRoles {
  std::optional<std::string> bos;
  std::optional<std::string> eos;
  std::optional<std::string> pad;
  std::optional<std::string> unk;
  std::vector<int64_t> stop_ids;
  std::string chat_template;
  std::string file;  // where the roles stand, for messages
};

struct TokenizerParts {
  // Throws std::runtime_error naming the file and the token at fault.
  TokenizerParts(TokenizerDescription description, TokenRoles roles, const std::string& file);

  std::vector<int32_t> encode(std::string_view text, const SpecialScope& scope) const;

  std::unique_ptr<Bpe> bpe;
  std::unique_ptr<AddedTokens> added;
  PreTokenizer pre_tokenizer;
  DecoderRules decoder;
  std::vector<int32_t> prefix_ids;
  std::vector<int32_t> suffix_ids;

  std::vector<std::string> tokens;                          // by id, vocabulary and added; empty = no token
  std::unordered_map<int32_t, std::string> decoded_tokens;  // where a token decodes to another text than its own
  std::vector<bool> is_special;                             // by id
  std::unordered_map<std::string_view, int32_t> added_ids;  // keys point into `added`
  std::optional<int32_t> bos_id, eos_id, pad_id, unk_id;
  std::vector<int32_t> stop_ids;
  std::string bos_text, eos_text;
  std::string chat_template;
  std::map<std::string, std::string> files;  // name -> bytes, for save()

 private:
  void index_decoded_tokens(const Normalizer& normalizer);
  void index_tokens(const BpeVocabulary& vocabulary, const std::string& file);
  void check_ids(const std::vector<int32_t>& ids, const std::string& file) const;
  void refuse_ordinary_special_tokens(const BpeVocabulary& vocabulary, const std::string& file) const;
  std::optional<int32_t> id_of_role(const std::optional<std::string>& token, const char* role,
                                    const TokenRoles& roles) const;
  void take_roles(const TokenRoles& roles);
};

}  // namespace troupe
