#include "core/text/chat_template.hpp"

#include <chrono>

#include "core/text/template_interpreter.hpp"
#include "core/text/template_parser.hpp"
#include "core/text/unicode.hpp"

namespace troupe {

using jinja::Text;
using jinja::Value;

struct ChatTemplate::Program {
  std::string source;
  std::string bos;
  std::string eos;
  ChatTemplateOptions options;
  jinja::Block block;
};

namespace {

std::tm local_time() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm time{};
  localtime_r(&now, &time);
  return time;
}

Value from_caller(const std::string& text) {
  return Value::of(Text::untrusted(to_valid_utf8(text)));
}

Value from_caller(const TemplateVariables::mapped_type& variable) {
  if (const bool* truth = std::get_if<bool>(&variable)) return Value::of(*truth);
  if (const int64_t* integer = std::get_if<int64_t>(&variable)) return Value::of(*integer);
  if (const double* number = std::get_if<double>(&variable)) return Value(*number);
  return from_caller(std::get<std::string>(variable));
}

}  // namespace

ChatTemplate::ChatTemplate(std::string source, std::string bos, std::string eos, ChatTemplateOptions options) {
  auto program = std::make_shared<Program>();
  program->block = jinja::parse_template(source);
  program->source = std::move(source);
  program->bos = to_valid_utf8(bos);
  program->eos = to_valid_utf8(eos);
  program->options = std::move(options);
  if (!program->options.now) program->options.now = local_time;
  program_ = std::move(program);
}

ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::ChatTemplate(const ChatTemplate&) = default;
ChatTemplate& ChatTemplate::operator=(const ChatTemplate&) = default;

const std::string& ChatTemplate::source() const {
  return program_->source;
}

std::string ChatTemplate::render(std::span<const ChatMessage> messages, bool add_generation_prompt,
                                 const TemplateVariables& variables) const {
  return render_marked(messages, add_generation_prompt, variables).text;
}

RenderedChat ChatTemplate::render_marked(std::span<const ChatMessage> messages, bool add_generation_prompt,
                                         const TemplateVariables& variables) const {
  std::map<std::string, Value> given;
  // transformers passes these two always, none where the caller has none.
  given["tools"] = Value();
  given["documents"] = Value();
  if (!program_->bos.empty()) given["bos_token"] = Value::of(program_->bos);
  if (!program_->eos.empty()) given["eos_token"] = Value::of(program_->eos);
  for (const auto& [name, value] : variables) given[name] = from_caller(value);
  given["add_generation_prompt"] = Value::of(add_generation_prompt);
  std::vector<Value> list;
  size_t input_bytes = 0;
  for (const ChatMessage& message : messages) {
    list.push_back(Value::dict({{Text::trusted("role"), from_caller(message.role)},
                                {Text::trusted("content"), from_caller(message.content)}}));
    input_bytes += message.role.size() + message.content.size() + 64;
  }
  given["messages"] = Value::list(std::move(list));
  // Longer chats may take more steps: a chat is never refused for its length alone.
  const ChatTemplateOptions& options = program_->options;
  const jinja::Limits limits{options.max_steps + 16 * input_bytes, options.max_output_bytes, options.max_depth};
  const Text text = jinja::run(program_->block, std::move(given), limits, options.now);
  return {text.bytes(), text.marks()};
}

}  // namespace troupe
