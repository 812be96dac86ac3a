#include "core/data/prompts.hpp"

#include <fstream>
#include <optional>
#include <stdexcept>

#include "core/config.hpp"

namespace troupe {
namespace {

constexpr std::size_t kMaxLineBytes = std::size_t{16} << 20;

// The lines of a file, none longer than the limit in memory.
class LineReader {
 public:
  explicit LineReader(const std::filesystem::path& file) : in_(file, std::ios::binary), block_(1 << 16, '\0') {
    if (!in_ || std::filesystem::is_directory(file)) throw std::runtime_error(file.string() + ": cannot be read");
  }

  // The next line without its end; false at the end of the file. A line beyond the limit is cut there, `too_long` set.
  bool next(std::string& line, bool& too_long) {
    line.clear();
    too_long = false;
    bool any = false;
    while (fill()) {
      any = true;
      const std::size_t newline = block_.find('\n', at_);
      const std::size_t end = newline < size_ ? newline : size_;
      const std::size_t room = kMaxLineBytes + 1 - line.size();
      line.append(block_, at_, std::min(end - at_, room));
      at_ = end;
      if (newline < size_) {
        ++at_;
        break;
      }
    }
    if (!line.empty() && line.back() == '\r') line.pop_back();
    too_long = line.size() > kMaxLineBytes;
    return any;
  }

  bool failed() const { return in_.bad(); }

 private:
  bool fill() {
    if (at_ < size_) return true;
    in_.read(block_.data(), static_cast<std::streamsize>(block_.size()));
    size_ = static_cast<std::size_t>(in_.gcount());
    at_ = 0;
    return size_ > 0;
  }

  std::ifstream in_;
  std::string block_;
  std::size_t at_ = 0;
  std::size_t size_ = 0;
};

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

Json parsed(const std::string& line, const std::string& where) {
  try {
    return parse_json(line, where, {kMaxLineBytes, 64});
  } catch (const std::invalid_argument& error) {
    // "FILE:17:1:5: reason": the 1 is the line within our one line.
    std::string what = error.what();
    if (what.starts_with(where + ":1:")) what.erase(where.size(), 2);
    throw std::runtime_error(what);
  }
}

Prompt prompt_of_line(const std::string& line, const std::string& where, int64_t number) {
  const Json object = parsed(line, where);
  std::vector<std::string> forms;
  if (object.is_object())
    for (const char* key : {"prompt", "messages", "conversations"})
      if (object.contains(key)) forms.emplace_back(key);
  if (forms.size() != 1)
    refuse(where,
           (forms.empty() ? "neither" : "more than one of") +
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
  LineReader reader(file);
  PromptFile out;
  std::string line;
  bool too_long = false;
  for (int64_t number = 1; reader.next(line, too_long); ++number) {
    const std::string where = file.string() + ":" + std::to_string(number);
    if (number == 1 && line.starts_with("\xEF\xBB\xBF")) line.erase(0, 3);
    if (line.find_first_not_of(" \t\r\v\f") == std::string::npos) continue;
    try {
      if (too_long) refuse(where, "the line is longer than 16 MiB");
      out.prompts.push_back(prompt_of_line(line, where, number));
    } catch (const std::runtime_error& error) {
      if (on_malformed == MalformedLine::kError) throw;
      if (out.num_skipped++ == 0) out.first_skipped = error.what();
    }
  }
  if (reader.failed()) throw std::runtime_error(file.string() + ": reading failed");
  if (out.prompts.empty())
    throw std::runtime_error(
        file.string() + ": no prompt in it" +
        (out.num_skipped ? ", " + std::to_string(out.num_skipped) + " malformed lines, the first: " + out.first_skipped
                         : std::string()));
  return out;
}

}  // namespace troupe
