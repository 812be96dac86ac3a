// A JSON-lines file of prompts, and the order in which a run draws them.
//
// One object per line:
//   {"prompt": "What is 2 + 3?", "answer": "5", "id": "a-17"}
//   {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 3?"}], "answer": "5"}
//   {"conversations": [{"role": "user", "content": "2 + 3?"}, {"role": "assistant", "content": "5"}]}
// Of "conversations" a last turn of the assistant is no part of the prompt; it is the answer where "answer" gives none.
// "answer" and "id" are optional; other keys are kept out of the way (ignored), so data sets with extra columns load.
// A byte-order mark at the file's start, CRLF line ends and lines of white space alone are accepted.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace troupe {

struct ChatTurn {
  std::string role;
  std::string content;
  friend bool operator==(const ChatTurn&, const ChatTurn&) = default;
};

struct Prompt {
  std::string text;                // "prompt"; or the last user turn's content
  std::vector<ChatTurn> messages;  // empty when the line gives "prompt"
  std::string answer;              // "" if the line has none
  std::string id;                  // "" if the line has none
  int64_t line = 0;                // 1-based, for messages to people
};

struct PromptFile {
  std::vector<Prompt> prompts;
  int64_t num_skipped = 0;    // malformed lines left out; 0 unless asked to skip
  std::string first_skipped;  // the first one's error, or ""
};

enum class MalformedLine { kError, kSkip };

// Throws std::runtime_error "FILE:LINE: what is wrong, what was expected" for a line that is no such object, is not
// UTF-8, or exceeds 16 MiB; and when no prompt is left.
PromptFile read_prompts(const std::filesystem::path& file, MalformedLine on_malformed = MalformedLine::kError);

// Which prompt a draw gives: every prompt once per epoch, each epoch in an order of its own. A pure function of (seed,
// size, draw): a resumed run draws what the first would have drawn. Thread-safe.
class PromptOrder {
 public:
  PromptOrder(uint64_t seed, uint64_t num_prompts);  // throws std::invalid_argument for 0 prompts
  uint64_t prompt_of(uint64_t draw) const;           // in [0, num_prompts)
  uint64_t epoch_of(uint64_t draw) const { return draw / num_prompts_; }

 private:
  uint64_t seed_;
  uint64_t num_prompts_;
};

}  // namespace troupe
