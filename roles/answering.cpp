#include "roles/answering.hpp"

#include <chrono>
#include <cstdio>

namespace troupe {
namespace {

std::string described(const ChosenModel& model) {
  char size[64];
  std::snprintf(size, sizeof size, ", %.1f M parameters", static_cast<double>(model.parameters()) / 1e6);
  return model.origin.string() + size;
}

// The oldest message and, with it, the answer it got. False when only the system's and the last are left.
bool forget_oldest(std::vector<ChatMessage>& messages, int64_t& forgotten) {
  const size_t first = messages.front().role == "system" ? 1 : 0;
  if (messages.size() < first + 2) return false;
  const size_t count = messages.size() >= first + 3 && messages[first + 1].role == "assistant" ? 2 : 1;
  const auto begin = messages.begin() + static_cast<std::ptrdiff_t>(first);
  messages.erase(begin, begin + static_cast<std::ptrdiff_t>(count));
  forgotten += static_cast<int64_t>(count);
  return true;
}

}  // namespace

AnswerStyle style_of(const ChatOptions& options) {
  AnswerStyle style{.plain = options.model.weight == "pretrain", .thinking = options.thinking};
  if (!style.thinking && options.model.weight == "reason") style.thinking = true;
  return style;
}

Answerer::Answerer(const ModelChoice& choice, const ComputeChoice& compute, AnswerStyle style)
    : Answerer(choose_model(choice, compute_dtype(compute)), compute, style) {}

Answerer::Answerer(ChosenModel model, const ComputeChoice& compute, AnswerStyle style)
    : style_(style),
      tokenizer_(model.tokenizer),
      context_(context_length(model.config)),
      bos_(model.tokenizer.bos_id()),
      description_(described(model)),
      engine_(make_engine(model, compute, [tokenizer = model.tokenizer](std::span<const int32_t> ids) {
        return tokenizer.decode(ids, true);
      })) {
  if (!bos_ && model.config.bos_token >= 0) bos_ = static_cast<int32_t>(model.config.bos_token);
  if (style_.thinking) variables_["enable_thinking"] = *style_.thinking;
  if (style_.plain) return;
  if (tokenizer_.chat_template_source().empty())
    throw std::runtime_error(model.origin.string() + ": has no chat template; --weight pretrain asks it without one");
  template_ = tokenizer_.chat_template();
}

std::vector<int32_t> Answerer::encoded(const std::vector<ChatMessage>& messages) const {
  if (template_) return tokenizer_.encode_chat(*template_, messages, true, variables_);
  std::vector<int32_t> ids = tokenizer_.encode(messages.back().content);
  if (bos_) ids.insert(ids.begin(), *bos_);
  return ids;
}

bool Answerer::opens_thinking(const std::vector<ChatMessage>& messages) const {
  if (!template_) return false;
  const std::string text = template_->render(messages, true, variables_);
  const size_t last = text.find_last_not_of(" \n");
  return last != text.npos && std::string_view(text).substr(0, last + 1).ends_with("<think>");
}

Answered Answerer::answer(std::vector<ChatMessage> messages, Sampling sampling, uint64_t seed, uint64_t draw,
                          const std::function<void(std::string_view)>& on_text, const std::atomic<int>* stop) {
  constexpr uint64_t kId = 1;
  const auto begin = std::chrono::steady_clock::now();
  Answered out;
  std::vector<int32_t> prompt = encoded(messages);
  const int64_t wanted = std::min(sampling.max_new_tokens, context_ / 4);
  while (static_cast<int64_t>(prompt.size()) + wanted > context_ && forget_oldest(messages, out.forgotten))
    prompt = encoded(messages);
  if (static_cast<int64_t>(prompt.size()) >= context_)
    throw std::runtime_error("the prompt has " + std::to_string(prompt.size()) + " tokens, the model's context is " +
                             std::to_string(context_));
  sampling.max_new_tokens = std::min(sampling.max_new_tokens, context_ - static_cast<int64_t>(prompt.size()));

  const uint64_t computed_before = engine_->stats().prompt_tokens;
  engine_->submit(
      {.id = kId, .seed = seed, .draw = draw, .prompt = std::move(prompt), .sampling = sampling, .keeps_cache = true});
  StreamDecoder decoder(tokenizer_, true);
  // With stop strings the text is certain only at the end: it may turn out to be cut.
  const bool streams = sampling.stop.empty();
  const auto show = [&](const std::string& piece) {
    out.text += piece;
    if (!piece.empty()) on_text(piece);
  };
  const auto show_tokens = [&](std::span<const int32_t> tokens) {
    for (; out.tokens < static_cast<int64_t>(tokens.size()); ++out.tokens)
      if (const std::string piece = decoder.push(tokens[static_cast<size_t>(out.tokens)]); streams) show(piece);
  };
  std::optional<Finished> finished;
  try {
    while (!finished && !(out.interrupted = stop && *stop != 0)) {
      engine_->step();
      show_tokens(engine_->tokens_so_far(kId));
      finished = engine_->take_finished();
    }
  } catch (...) {
    engine_->cancel(kId);
    throw;
  }
  if (finished) {
    out.finish = finished->completions[0].finish;
    if (!streams) show(finished->completions[0].text);
  } else {
    engine_->cancel(kId);
  }
  if (streams) show(decoder.flush());
  out.computed = static_cast<int64_t>(engine_->stats().prompt_tokens - computed_before);
  out.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return out;
}

std::string speed_line(const Answered& answer) {
  char text[128];
  std::snprintf(text, sizeof text, "[%lld tokens, %.1f tokens/s%s]", static_cast<long long>(answer.tokens),
                answer.seconds > 0 ? static_cast<double>(answer.tokens) / answer.seconds : 0.0,
                answer.interrupted                       ? ", stopped"
                : answer.finish == FinishReason::kLength ? ", cut at its longest"
                                                         : "");
  return text;
}

}  // namespace troupe
