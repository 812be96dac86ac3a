// How well a model predicts a text: exp of the mean negative log-likelihood of its tokens.
#pragma once

#include <filesystem>

#include "core/generate/engine.hpp"
#include "core/text/tokenizer.hpp"

namespace troupe {

// Window k holds the tokens [k * stride, k * stride + max_length), the last one those up to the end. The first scores
// all of its tokens but the first, which nothing precedes; each later one scores the tokens that no window before it
// had, with its others as context. So every token but a text's first is scored exactly once, with at least
// max_length - stride tokens before it where there are so many.
struct WindowOptions {
  int64_t max_length = 2048;
  int64_t stride = 1024;       // 1 to max_length - 1
  std::optional<int32_t> bos;  // put before each text, unless the tokenizer has done so
};

struct PerplexityResult {
  int64_t texts = 0;
  int64_t tokens = 0;  // of all texts, bos included
  int64_t scored = 0;
  int64_t windows = 0;
  double log_likelihood = 0;  // natural logarithm, sum over the scored tokens

  double mean_loss() const { return -log_likelihood / static_cast<double>(scored); }
  double perplexity() const;
};

// `data`: a .jsonl file, each line's "text" a text of its own; any other file is one text.
// Throws std::runtime_error naming the file (and line) that can't be read or holds nothing to score.
PerplexityResult measure_perplexity(Engine& engine, const Tokenizer& tokenizer, const std::filesystem::path& data,
                                    const WindowOptions& options);

}  // namespace troupe
