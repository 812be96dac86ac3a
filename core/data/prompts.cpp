#include "core/data/prompts.hpp"

#include <stdexcept>

#include "core/data/json_records.hpp"
#include "core/data/jsonl.hpp"

namespace troupe {
namespace {

constexpr std::size_t kMaxLineBytes = std::size_t{16} << 20;

[[noreturn]] void refuse(const std::string& where, const std::string& why) {
  throw std::runtime_error(where + ": " + why);
}

std::string string_at(const Json& object, const char* key, const std::string& where) {
  const auto value = object.find(key);
  if (value == object.end()) refuse(where, std::string("\"") + key + "\" is missing; expected a string");
  if (!value->is_string()) refuse(where, std::string("\"") + key + "\" is no string");
  return value->get<std::string>();
}

// A string, or a number as it is written in JSON; "" when the key is absent or null.
std::string text_or_number(const Json& object, const char* key, const std::string& where) {
  const auto value = object.find(key);
  if (value == object.end() || value->is_null()) return "";
  if (value->is_number()) return value->dump();
  if (!value->is_string()) refuse(where, std::string("\"") + key + "\" is neither a string nor a number");
  return value->get<std::string>();
}

std::vector<ChatTurn> turns_of(const Json& object, const std::string& key, const std::string& where) {
  const Json& messages = object[key];
  if (!messages.is_array() || messages.empty()) refuse(where, "\"" + key + "\" is no list of turns");
  std::vector<ChatTurn> turns;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const std::string at = where + ": " + key + "[" + std::to_string(i) + "]";
    if (!messages[i].is_object()) refuse(at, "expected {\"role\", \"content\"}");
    turns.push_back({string_at(messages[i], "role", at), string_at(messages[i], "content", at)});
    if (turns.back().role.empty()) refuse(at, "\"role\" is empty");
  }
  return turns;
}

void expect_question(const std::vector<ChatTurn>& turns, const std::string& key, const std::string& where) {
  if (turns.empty() || turns.back().role != "user")
    refuse(where, "the last of \"" + key + "\" is not the user's: there is nothing to answer");
}

Prompt prompt_of_line(std::string_view line, const std::string& where, int64_t number) {
  if (line.size() > kMaxLineBytes) refuse(where, "the line is longer than 16 MiB");
  const Json object = parse_json_line(line, where, {kMaxLineBytes, 64});
  std::vector<std::string> forms;
  if (object.is_object())
    for (const char* key : {"prompt", "messages", "conversations"})
      if (object.contains(key)) forms.emplace_back(key);
  if (forms.size() != 1)
    refuse(where,
           (forms.empty() ? "none of" : "more than one of") +
               std::string(" \"prompt\", \"messages\" and \"conversations\"; expected an object with one of them"));
  const std::string& form = forms.front();
  Prompt prompt;
  prompt.line = number;
  if (form == "prompt") {
    prompt.text = string_at(object, "prompt", where);
  } else {
    prompt.messages = turns_of(object, form, where);
    if (form == "conversations" && prompt.messages.back().role == "assistant") {
      prompt.answer = prompt.messages.back().content;
      prompt.messages.pop_back();
    }
    expect_question(prompt.messages, form, where);
    prompt.text = prompt.messages.back().content;
  }
  if (prompt.text.empty()) refuse(where, "the prompt is empty");
  if (const std::string answer = text_or_number(object, "answer", where); !answer.empty()) prompt.answer = answer;
  prompt.id = text_or_number(object, "id", where);
  return prompt;
}

}  // namespace

PromptFile read_prompts(const std::filesystem::path& file, MalformedLine on_malformed) {
  const JsonLines lines(file);
  PromptFile out;
  for (int64_t i = 0; i < lines.size(); ++i) {
    try {
      out.prompts.push_back(prompt_of_line(lines.line(i), lines.where(i), lines.line_number(i)));
    } catch (const std::runtime_error& error) {
      if (on_malformed == MalformedLine::kError) throw;
      if (out.num_skipped++ == 0) out.first_skipped = error.what();
    }
  }
  if (out.prompts.empty())
    throw std::runtime_error(
        file.string() + ": no prompt in it" +
        (out.num_skipped ? ", " + std::to_string(out.num_skipped) + " malformed lines, the first: " + out.first_skipped
                         : std::string()));
  return out;
}

}  // namespace troupe
