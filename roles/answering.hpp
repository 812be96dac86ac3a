// A model that answers one conversation at a time, its text handed out as it grows.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "roles/chosen_model.hpp"

namespace troupe {

struct AnswerStyle {
  bool plain = false;            // pretrained weights know no chat: bos and the last message's text
  std::optional<bool> thinking;  // the template's enable_thinking; none: not given
};

// The usual style of a model's weights, by MiniMind's names: "pretrain" is plain, "reason" thinks.
AnswerStyle style_of(const ChatOptions& options);

struct Answered {
  std::string text;
  FinishReason finish = FinishReason::kLength;
  bool interrupted = false;
  int64_t tokens = 0;
  double seconds = 0;     // the prompt's included
  int64_t computed = 0;   // tokens of the prompt; the others were in the cache from the turn before
  int64_t forgotten = 0;  // oldest messages left out because the context is full
};

class Answerer {
 public:
  // Throws like choose_model and Engine, and when a chat is asked of a model without a template.
  Answerer(const ModelChoice& choice, const ComputeChoice& compute, AnswerStyle style);

  // `messages` end with the user's. max_new_tokens is cut to the room that is left; when there is little, the oldest
  // messages (but for the system's) are forgotten. A stop request that is not 0 ends the answer where it is.
  // Throws std::runtime_error when the last message alone leaves no room.
  Answered answer(std::vector<ChatMessage> messages, Sampling sampling, uint64_t seed, uint64_t draw,
                  const std::function<void(std::string_view)>& on_text, const std::atomic<int>* stop = nullptr);

  // "out/full_sft_512.pth, 25.8 M parameters"
  const std::string& description() const { return description_; }

  // Whether the answer begins inside of <think>, because the template has opened it.
  bool opens_thinking(const std::vector<ChatMessage>& messages) const;

 private:
  std::vector<int32_t> encoded(const std::vector<ChatMessage>& messages) const;

  const AnswerStyle style_;
  Tokenizer tokenizer_;
  std::optional<ChatTemplate> template_;
  TemplateVariables variables_;
  int64_t context_ = 0;
  std::optional<int32_t> bos_;
  std::string description_;
  std::unique_ptr<Engine> engine_;

  Answerer(ChosenModel model, const ComputeChoice& compute, AnswerStyle style);
};

// "[212 tokens, 35.1 tokens/s]", and what ended the answer early.
std::string speed_line(const Answered& answer);

}  // namespace troupe
