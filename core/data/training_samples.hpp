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

// How MiniMind's code of different times makes samples (docs/tutorial.md): canonical is March 2026.
enum class SampleStyle { kCanonical, kDecember2025, kFork };

struct SampleOptions {
  int64_t max_length = 512;  // tokens; longer samples are cut
  SampleStyle style = SampleStyle::kCanonical;
};

// Immutable; any thread.
class SampleMaker {
 public:
  // The tokenizer needs bos, eos and (but for pretraining) a chat template. Throws std::runtime_error when it lacks
  // one.
  SampleMaker(Tokenizer tokenizer, SampleOptions options);

  // bos + text + eos; all but bos is scored.
  TrainingSample pretrain(std::string_view line) const;
  // The chat rendered; of every assistant turn its content, the end-of-turn token and the newline after it are scored.
  // "functions" of a leading system message are its tools. A turn cut by max_length keeps what is inside.
  TrainingSample conversation(std::string_view line) const;
  // Both conversations as above.
  PreferencePair preference(std::string_view line) const;

 private:
  Tokenizer tokenizer_;
  SampleOptions options_;
};

}  // namespace troupe
