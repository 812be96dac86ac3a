#include "roles/prompt_source.hpp"

namespace troupe {
namespace {

std::vector<ChatMessage> chat_of(const Prompt& prompt, const PromptsSection& section) {
  std::vector<ChatMessage> messages;
  if (section.system) messages.push_back({"system", *section.system});
  if (prompt.messages.empty()) messages.push_back({"user", prompt.text});
  for (const ChatTurn& turn : prompt.messages) messages.push_back({turn.role, turn.content});
  return messages;
}

}  // namespace

std::vector<TokenizedPrompt> read_tokenized_prompts(const std::filesystem::path& file, const Tokenizer& tokenizer,
                                                    const PromptsSection& section) {
  std::optional<ChatTemplate> chat;
  if (!tokenizer.chat_template_source().empty()) chat = tokenizer.chat_template();
  std::vector<TokenizedPrompt> out;
  for (const Prompt& prompt : read_prompts(file).prompts) {
    const std::vector<int32_t> ids =
        chat ? tokenizer.encode_chat(*chat, chat_of(prompt, section), true) : tokenizer.encode_with_bos(prompt.text);
    if (static_cast<int64_t>(ids.size()) > section.max_prompt_tokens)
      throw std::runtime_error(file.string() + ":" + std::to_string(prompt.line) + ": the prompt has " +
                               std::to_string(ids.size()) + " tokens, prompts.max_prompt_tokens is " +
                               std::to_string(section.max_prompt_tokens));
    if (ids.empty())
      throw std::runtime_error(file.string() + ":" + std::to_string(prompt.line) + ": the prompt has no token");
    out.push_back({ids, prompt.text, prompt.answer, prompt.line});
  }
  return out;
}

void check_expected_answers(const std::vector<TokenizedPrompt>& prompts, const std::filesystem::path& file,
                            const RuleSet& rules, int64_t max_new_tokens) {
  for (const TokenizedPrompt& prompt : prompts) {
    try {  // an empty response scores low, unless a rule can't be computed for this prompt at all
      rules.score({.prompt = prompt.text, .answer = prompt.answer, .response = "", .max_new_tokens = max_new_tokens});
    } catch (const std::runtime_error& error) {
      throw std::runtime_error(file.string() + ":" + std::to_string(prompt.line) + ": " + error.what());
    }
  }
}

}  // namespace troupe
