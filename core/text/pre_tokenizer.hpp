// Cuts text into the words that BPE works on, one at a time: a list of steps, each of which refines the pieces of the
// one before.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/text/regex.hpp"

namespace troupe {

// Text cut into pieces. The pieces are in order and do not overlap; none is empty.
struct Pieces {
  std::string text;
  std::vector<Span> spans;
};

enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

// Cuts at the matches of a pattern. With `invert`, at what lies between them.
struct SplitStep {
  Regex pattern;
  SplitBehavior behavior;
  bool invert = false;
};

// Numbers (categories Nd, Nl, No) become pieces of their own, whole or character by character.
struct DigitsStep {
  bool individual;
};

// Spells each piece in the byte-level alphabet; before that, with `pattern`, cuts it as GPT-2 does.
struct ByteLevelStep {
  bool add_prefix_space;
  bool use_pattern;
};

using PreTokenizerStep = std::variant<SplitStep, DigitsStep, ByteLevelStep>;

class PreTokenizer {
 public:
  PreTokenizer() = default;
  explicit PreTokenizer(std::vector<PreTokenizerStep> steps) : steps_(std::move(steps)) {}

  // Of well-formed UTF-8. Without steps the whole text is one piece. Throws std::runtime_error when a pattern exceeds
  // its match limit.
  Pieces split(std::string_view text) const;

 private:
  std::vector<PreTokenizerStep> steps_;
};

// The split of GPT-2, as its authors published it.
inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

}  // namespace troupe
