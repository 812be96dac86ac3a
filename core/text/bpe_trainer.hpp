// Training of a byte-level BPE vocabulary: what the `tokenizers` library's BpeTrainer does for MiniMind's tokenizer.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/tokenizer.hpp"

namespace troupe {

struct BpeTrainingOptions {
  int64_t vocab_size = 6400;
  // Ids 0, 1, 2, ...; the first is the padding and unknown token, the second bos, the third eos, as far as they exist.
  std::vector<std::string> special_tokens = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
  int64_t min_frequency = 0;
  std::string chat_template;  // "": none
};

// Chats between <|im_start|> and <|im_end|>, with a system message always, as MiniMind's template renders them without
// tools.
extern const std::string kChatMlTemplate;

// Texts one after another; none when there is no more. A view is valid until the next call.
using TextSource = std::function<std::optional<std::string_view>()>;

// Words split by the GPT-2 pattern, an alphabet of all 256 bytes in code-point order, then merges: the pair counted
// most often, of equal ones the smaller (left id, right id). Stops early when no pair is left. Deterministic. Bytes
// that are not UTF-8 count as U+FFFD. The tokenizer saves as tokenizer.json (the library's own bytes), vocab.json,
// merges.txt and tokenizer_config.json.
//
// One thing differs from the library: no merge makes a special token, however often its text stands in the texts.
//
// One thread; memory of about 4 bytes a character of distinct words, and of the places of their pairs. Throws
// std::invalid_argument when vocab_size leaves no room for the special tokens and the alphabet, or when a special token
// is empty, stands twice or is a single character of the alphabet.
Tokenizer train_bpe(const TextSource& texts, const BpeTrainingOptions& options,
                    const std::function<void(const std::string& line)>& on_progress = {});

}  // namespace troupe
