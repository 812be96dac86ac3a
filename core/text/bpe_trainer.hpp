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
  std::vector<std::string> special_tokens = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};  // ids 0, 1, 2, ...
  int64_t min_frequency = 0;
  std::string chat_template;  // "": none
};

// Texts one after another; none when there is no more.
using TextSource = std::function<std::optional<std::string_view>()>;

// Words split by the GPT-2 pattern, an alphabet of all 256 bytes in code-point order, then merges: the pair counted
// most often, of equal ones the smaller (left id, right id). Stops early when no pair is left. Deterministic. Throws
// std::invalid_argument when vocab_size leaves no room for the special tokens and the alphabet.
Tokenizer train_bpe(const TextSource& texts, const BpeTrainingOptions& options,
                    const std::function<void(const std::string& line)>& on_progress = {});

}  // namespace troupe
