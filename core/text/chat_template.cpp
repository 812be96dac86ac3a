#include "core/text/chat_template.hpp"

#include <chrono>
#include <nlohmann/json.hpp>

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

using OrderedJson = nlohmann::ordered_json;
using Items = std::vector<std::pair<Text, Value>>;

constexpr int kMaxJsonDepth = 64;

Value from_json(const OrderedJson& json, int depth);

Items items_of(const OrderedJson& object, int depth) {
  Items items;
  for (const auto& [key, value] : object.items())
    items.emplace_back(Text::untrusted(to_valid_utf8(key)), from_json(value, depth + 1));
  return items;
}

Value from_json(const OrderedJson& json, int depth) {
  if (depth > kMaxJsonDepth) throw std::invalid_argument("JSON for the chat template nests deeper than 64");
  if (json.is_null()) return Value();
  if (json.is_boolean()) return Value::of(json.get<bool>());
  if (json.is_number_integer() && !(json.is_number_unsigned() && json.get<uint64_t>() > INT64_MAX))
    return Value::of(json.get<int64_t>());
  if (json.is_number()) return Value(json.get<double>());
  if (json.is_string()) return from_caller(json.get_ref<const std::string&>());
  if (json.is_object()) return Value::dict(items_of(json, depth));
  std::vector<Value> list;
  for (const OrderedJson& item : json) list.push_back(from_json(item, depth + 1));
  return Value::list(std::move(list));
}

OrderedJson parsed(const std::string& text) {
  try {
    return OrderedJson::parse(text);
  } catch (const OrderedJson::exception& error) {
    throw std::invalid_argument(std::string("JSON for the chat template: ") + error.what());
  }
}

Value from_caller(const TemplateVariables::mapped_type& variable) {
  if (const bool* truth = std::get_if<bool>(&variable)) return Value::of(*truth);
  if (const int64_t* integer = std::get_if<int64_t>(&variable)) return Value::of(*integer);
  if (const double* number = std::get_if<double>(&variable)) return Value(*number);
  if (const JsonText* json = std::get_if<JsonText>(&variable)) return from_json(parsed(json->text), 0);
  return from_caller(std::get<std::string>(variable));
}

Value from_caller(const ChatMessage& message) {
  Items fields = {{Text::trusted("role"), from_caller(message.role)},
                  {Text::trusted("content"), from_caller(message.content)}};
  if (!message.more.empty()) {
    const OrderedJson more = parsed(message.more);
    if (!more.is_object()) throw std::invalid_argument("a chat message's further fields are no JSON object");
    for (auto& field : items_of(more, 0))
      if (field.first.bytes() != "role" && field.first.bytes() != "content") fields.push_back(std::move(field));
  }
  return Value::dict(std::move(fields));
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
    list.push_back(from_caller(message));
    input_bytes += message.role.size() + message.content.size() + message.more.size() + 64;
  }
  given["messages"] = Value::list(std::move(list));
  // Longer chats may take more steps: a chat is never refused for its length alone.
  const ChatTemplateOptions& options = program_->options;
  const jinja::Limits limits{options.max_steps + 16 * input_bytes, options.max_output_bytes, options.max_depth};
  const Text text = jinja::run(program_->block, std::move(given), limits, options.now);
  return {text.bytes(), text.marks()};
}

}  // namespace troupe
