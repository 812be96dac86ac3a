// The tokenizer as a GGUF file holds it: plain values under their metadata keys. The GGUF reader fills it; the
// tokenizer validates it (counts, ids, merges), so a reader copies what it finds and invents nothing.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace troupe {

struct GgufVocabulary {
  std::string source;                   // the file's name, for error messages only
  std::string model;                    // tokenizer.ggml.model: "gpt2" is byte-level BPE
  std::string pre;                      // tokenizer.ggml.pre: names the split rule; empty when the key is absent
  std::vector<std::string> tokens;      // tokenizer.ggml.tokens: index = id, in the byte-level alphabet
  std::vector<int32_t> token_types;     // tokenizer.ggml.token_type: 1 normal, 2 unknown, 3 control, 4 user-defined,
                                        // 5 unused, 6 byte; one per token, or empty when the key is absent
  std::vector<std::string> merges;      // tokenizer.ggml.merges: "left right", best first
  std::optional<int64_t> bos_token_id;  // tokenizer.ggml.bos_token_id, and so on; absent key = no value
  std::optional<int64_t> eos_token_id;  //
  std::optional<int64_t> padding_token_id;  //
  std::optional<int64_t> unknown_token_id;  //
  std::optional<bool> add_bos_token;        // tokenizer.ggml.add_bos_token
  std::string chat_template;                // tokenizer.chat_template; empty when the key is absent
};

}  // namespace troupe
