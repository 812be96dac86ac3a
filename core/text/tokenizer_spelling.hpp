// The parts of a tokenizer.json as the `tokenizers` library spells them. Json: nlohmann::json, or ordered_json where
// the file should read as the library's own.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

namespace troupe {

template <class Json>
Json byte_level_part(bool add_prefix_space, bool use_regex) {
  return {
      {"type", "ByteLevel"}, {"add_prefix_space", add_prefix_space}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

template <class Json>
Json added_token(int64_t id, const std::string& content, bool special) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", special}};
}

// `vocabulary`: token to id; `merges`: pairs of tokens, the first merged first.
template <class Json>
Json bpe_model(Json vocabulary, Json merges, bool ignore_merges) {
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", nullptr},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", false},
          {"byte_fallback", false},
          {"ignore_merges", ignore_merges},
          {"vocab", std::move(vocabulary)},
          {"merges", std::move(merges)}};
}

template <class Json>
struct TokenizerFileParts {
  Json added_tokens, normalizer, pre_tokenizer, post_processor, decoder, model;  // null: none
};

template <class Json>
Json tokenizer_file(TokenizerFileParts<Json> parts) {
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", std::move(parts.added_tokens)},
          {"normalizer", std::move(parts.normalizer)},
          {"pre_tokenizer", std::move(parts.pre_tokenizer)},
          {"post_processor", std::move(parts.post_processor)},
          {"decoder", std::move(parts.decoder)},
          {"model", std::move(parts.model)}};
}

}  // namespace troupe
