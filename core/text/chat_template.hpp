// Chat templates: the Jinja of tokenizer_config.json, chat_template.jinja and GGUF files, rendered as transformers'
// apply_chat_template renders it (trim_blocks, lstrip_blocks, its tojson, raise_exception and strftime_now).
//
// The language is the part of Jinja that the templates of the Llama, SmolLM2, Qwen, MiniMind and DeepSeek families use:
// for, if, set, macro, break, continue, generation; the usual expressions, filters, tests and string methods. Anything
// else is an error that names the construct and its line, at construction where it can be seen there.
// A template computes on the values given to render() and reaches nothing else; steps, memory and depth are bounded.
//
// Every byte of the output remembers whether the template wrote it or whether it came in through a message or a
// variable: Tokenizer::encode_chat lets only the template's own bytes form special tokens.
//
// Threads: a ChatTemplate is immutable; any number of threads may render at once.
#pragma once

#include <cstdint>
#include <ctime>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace troupe {

struct ChatMessage {
  std::string role;     // "system", "user", "assistant", ...
  std::string content;  // UTF-8; a byte that is not UTF-8 is rendered as U+FFFD
  std::string more;     // further fields that the template may read, a JSON object ({"tool_calls": [...]}); "": none
};

// A value as JSON text; its keys keep their order.
struct JsonText {
  std::string text;
};

// What a caller may hand to a template beside the messages, e.g. {"enable_thinking", false}, {"tools", JsonText{...}}.
using TemplateVariables = std::map<std::string, std::variant<bool, int64_t, double, std::string, JsonText>>;

struct RenderedChat {
  std::string text;
  std::string trusted;  // as long as text: 1 where the template itself wrote the byte, 0 where a caller's value did
};

struct ChatTemplateOptions {
  std::function<std::tm()> now;    // the clock of strftime_now; empty = local time
  uint64_t max_steps = 2'000'000;  // expressions, iterations and 64-byte blocks of text handled in one render
  size_t max_output_bytes = size_t{64} << 20;  // of the output and of any one string value
  size_t max_depth = 500;                      // nested expressions, statements and macro calls
};

class ChatTemplate {
 public:
  // bos and eos are the texts of the tokens; an empty one stays undefined in the template, as in transformers.
  // Throws std::invalid_argument ("chat template line 3: ...") on a syntax error or an unsupported construct.
  ChatTemplate(std::string source, std::string bos, std::string eos, ChatTemplateOptions options = {});
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ChatTemplate(const ChatTemplate&);
  ChatTemplate& operator=(const ChatTemplate&);

  // Throws std::runtime_error when the template raises, computes nonsense, or exceeds a limit; std::invalid_argument
  // when JSON given to it is none, or nests deeper than 64.
  std::string render(std::span<const ChatMessage> messages, bool add_generation_prompt,
                     const TemplateVariables& variables = {}) const;
  RenderedChat render_marked(std::span<const ChatMessage> messages, bool add_generation_prompt,
                             const TemplateVariables& variables = {}) const;

  const std::string& source() const;

 private:
  struct Program;
  std::shared_ptr<const Program> program_;
};

}  // namespace troupe
