// Lines of training data as tokens, and which of them a loss is taken of.
//
//   {"text": "..."}                                                  pretraining
//   {"conversations": [{"role": "user", "content": "..."}, ...]}     supervised, distillation, reasoning
//   {"chosen": [messages], "rejected": [messages]}                   preference pairs: DPO, reward models
//
// Every function throws std::invalid_argument saying what is wrong with the line and what was expected
// ("conversations[2] has no \"content\""); the caller knows file and line. Keys beside these are ignored.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/tokenizer.hpp"

namespace troupe {

struct TrainingSample {
  std::vector<int32_t> tokens;  // at most max_length, no padding
  std::vector<uint8_t> scored;  // as long; 1: the model learns to predict this token. scored[0] is 0.
  int64_t num_scored() const;
};

struct PreferencePair {
  TrainingSample chosen, rejected;
};

// How MiniMind's code of different times makes samples (docs/tutorial.md); canonical is March 2026.
// December 2025: pretraining text without bos and eos.
// Fork (January 2026): pretraining text between bos and eos, then cut, so that eos may be lost; the newline after an
// answer is not scored; text that looks like an answer's header ("assistant", newline) opens one; of preference pairs
// every token but the first is scored.
enum class SampleStyle { kCanonical, kDecember2025, kFork };

struct SampleOptions {
  int64_t max_length = 512;  // tokens, at least 2; longer samples are cut
  SampleStyle style = SampleStyle::kCanonical;
};

// Immutable; any thread.
//
// Where an answer begins and ends is learnt from the chat template: its generation prompt opens a turn (or, where it
// has none, what it writes after a question), what it writes after a message of the assistant closes one. Both are
// found in the template's own text alone, so that no user can open a turn. A turn's text is encoded apart from its
// header, as it is in generation: the tokens differ from those of the whole text only where an answer begins with white
// space that would merge with the header's.
class SampleMaker {
 public:
  // Throws std::invalid_argument for a max_length below 2.
  SampleMaker(Tokenizer tokenizer, SampleOptions options);

  // bos (where the tokenizer has one) + text + eos; all but the first token is scored, and padding that the text
  // spells. Special tokens that the text spells are those tokens. Throws std::runtime_error when the tokenizer has no
  // eos.
  TrainingSample pretrain(std::string_view line) const;
  // The chat rendered; of every assistant turn its content and what the template closes it with (MiniMind: <|im_end|>
  // and a newline) are scored. "functions" of a leading system message are its tools; fields beside "role" and
  // "content" go to the template. Throws std::runtime_error when the tokenizer has no chat template, or one that opens
  // or closes an answer with nothing.
  TrainingSample conversation(std::string_view line) const;
  // Both conversations as above. Also {"prompt": "..." or "conversations": [messages], "chosen": "...", "rejected":
  // "..."}, where the two are the last turn's content.
  PreferencePair preference(std::string_view line) const;

 private:
  TrainingSample sample_of(std::span<const ChatMessage> messages, const TemplateVariables& variables) const;
  void score_as_fork(TrainingSample& sample) const;
  void learn_turns();

  Tokenizer tokenizer_;
  SampleOptions options_;
  std::optional<ChatTemplate> template_;
  RenderedChat header_, ending_;     // of an assistant's turn
  std::vector<int32_t> header_ids_;  // without the special tokens at its front
  std::string no_turns_;             // why there are none, or ""
};

}  // namespace troupe
