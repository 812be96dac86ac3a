#include "core/data/training_samples.hpp"

#include <algorithm>
#include <stdexcept>

#include "core/config.hpp"

namespace troupe {
namespace {

constexpr std::size_t kMaxLineBytes = std::size_t{64} << 20;
constexpr int kMaxDepth = 64;

[[noreturn]] void refuse(const std::string& reason) {
  throw std::invalid_argument(reason);
}

// A line that is one JSON object. The checked form has its keys sorted; the ordered one is made where order matters.
class Line {
 public:
  explicit Line(std::string_view text) : text_(text) {
    try {
      json_ = parse_json(text, "", {kMaxLineBytes, kMaxDepth});
    } catch (const std::invalid_argument& error) {
      // ":1:5: reason", the 1 being the line within our one line.
      const std::string_view what = error.what();
      refuse(what.starts_with(":1:") ? "column " + std::string(what.substr(3)) : std::string(what));
    }
    if (!json_.is_object()) refuse("expected a JSON object");
  }

  const Json& json() const { return json_; }
  const Json& at(const char* key, const char* expected) const {
    const auto found = json_.find(key);
    if (found == json_.end()) refuse(std::string("no \"") + key + "\"; expected " + expected);
    return *found;
  }
  std::string string(const char* key) const {
    const Json& value = at(key, "a string");
    if (!value.is_string()) refuse(std::string("\"") + key + "\" is no string");
    return value.get<std::string>();
  }
  const OrderedJson& ordered() const {
    if (ordered_.is_null()) ordered_ = OrderedJson::parse(text_);
    return ordered_;
  }

 private:
  std::string_view text_;
  Json json_;
  mutable OrderedJson ordered_;
};

std::string text_of(const Json& message, const char* key, const std::string& where) {
  const auto value = message.find(key);
  const bool absent = value == message.end() || value->is_null();
  if (absent && key == std::string_view("content") && message.contains("tool_calls")) return "";
  if (absent) refuse(where + " has no \"" + key + "\"");
  if (!value->is_string()) refuse(where + ": \"" + key + "\" is no string");
  return value->get<std::string>();
}

// The fields beside role and content, in the order they were written in; "" without any.
std::string further_fields(const Line& line, const char* list, std::size_t i) {
  OrderedJson more = line.ordered()[list][i];
  more.erase("role");
  more.erase("content");
  return more.dump();
}

std::vector<ChatMessage> messages_of(const Line& line, const char* list) {
  const Json& messages = line.at(list, "a list of messages");
  if (!messages.is_array() || messages.empty()) refuse(std::string("\"") + list + "\" is no list of messages");
  std::vector<ChatMessage> out;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const std::string where = std::string(list) + "[" + std::to_string(i) + "]";
    const Json& message = messages[i];
    if (!message.is_object()) refuse(where + " is no object with \"role\" and \"content\"");
    out.push_back({text_of(message, "role", where), text_of(message, "content", where), ""});
    if (out.back().role.empty()) refuse(where + ": \"role\" is empty");
    const std::size_t known = 1 + (message.contains("content") ? 1 : 0);
    if (message.size() > known) out.back().more = further_fields(line, list, i);
  }
  return out;
}

std::vector<ChatMessage> answered_messages_of(const Line& line, const char* list) {
  std::vector<ChatMessage> out = messages_of(line, list);
  if (std::none_of(out.begin(), out.end(), [](const ChatMessage& m) { return m.role == "assistant"; }))
    refuse(std::string("\"") + list + "\" has no message of the role \"assistant\": there is nothing to learn");
  return out;
}

TemplateVariables tools_of(const Line& line, const char* list) {
  const Json& first = line.json()[list][0];
  const auto functions = first.find("functions");
  if (first["role"] != "system" || functions == first.end() || functions->is_null()) return {};
  if (!functions->is_array()) refuse(std::string(list) + "[0]: \"functions\" is no list");
  return {{"tools", JsonText{line.ordered()[list][0]["functions"].dump()}}};
}

// A place at or after `from` where the text of `what` stands and the template itself wrote at least the bytes that it
// wrote of `what`; npos when there is none.
std::size_t find_written(const RenderedChat& chat, const RenderedChat& what, std::size_t from) {
  const auto written_at = [&](std::size_t at) {
    for (std::size_t i = 0; i < what.text.size(); ++i)
      if (what.trusted[i] && !chat.trusted[at + i]) return false;
    return true;
  };
  for (std::size_t at = from; (at = chat.text.find(what.text, at)) != std::string::npos; ++at)
    if (written_at(at)) return at;
  return std::string::npos;
}

RenderedChat part(const RenderedChat& chat, std::size_t begin, std::size_t size) {
  return {chat.text.substr(begin, size), chat.trusted.substr(begin, size)};
}

RenderedChat after_content(const RenderedChat& chat) {
  return part(chat, chat.trusted.rfind('\0') + 1, std::string::npos);
}

void cut(TrainingSample& sample, int64_t max_length) {
  const auto length = std::min(sample.tokens.size(), static_cast<std::size_t>(max_length));
  sample.tokens.resize(length);
  sample.scored.resize(length);
  if (length > 0) sample.scored[0] = 0;  // nothing predicts it
}

}  // namespace

int64_t TrainingSample::num_scored() const {
  return std::count(scored.begin(), scored.end(), 1);
}

SampleMaker::SampleMaker(Tokenizer tokenizer, SampleOptions options)
    : tokenizer_(std::move(tokenizer)), options_(options) {
  if (options_.max_length < 2)
    refuse("a sample of " + std::to_string(options_.max_length) + " tokens; expected at least 2");
  try {
    learn_turns();
  } catch (const std::runtime_error& error) {
    no_turns_ = error.what();  // pretraining needs none
  }
}

// From the shortest chat there is.
void SampleMaker::learn_turns() {
  template_ = tokenizer_.chat_template();
  const std::vector<ChatMessage> chat = {{"user", "x"}, {"assistant", "x"}};
  const RenderedChat asked = template_->render_marked({&chat[0], 1}, false);
  const std::string prompt = template_->render({&chat[0], 1}, true);
  const RenderedChat answered = template_->render_marked(chat, false);
  std::string header;
  if (prompt.starts_with(asked.text)) header = prompt.substr(asked.text.size());
  if (header.empty()) header = after_content(asked).text;  // Llama 2: the question's end is the prompt
  if (header.empty()) throw std::runtime_error("the chat template writes nothing before an answer");
  ending_ = after_content(answered);
  if (ending_.text.empty()) throw std::runtime_error("the chat template writes nothing after an answer");
  // As it stands before an answer, where the role may be the message's own word.
  const std::size_t at = answered.text.rfind(header, answered.text.size() - ending_.text.size() - header.size());
  if (at == std::string::npos)
    throw std::runtime_error("the chat template does not show answers as it prompts for them");
  header_ = part(answered, at, header.size());
  if (header_.trusted.find('\1') == std::string::npos)
    throw std::runtime_error("the chat template writes nothing of its own before an answer");
  header_ids_ = tokenizer_.encode(header, SpecialTokens::kParse);
  const auto ordinary =
      std::find_if(header_ids_.begin(), header_ids_.end(), [&](int32_t id) { return !tokenizer_.is_special(id); });
  header_ids_.erase(header_ids_.begin(), ordinary);
}

TrainingSample SampleMaker::pretrain(std::string_view line) const {
  if (!tokenizer_.eos_id()) throw std::runtime_error("the tokenizer has no eos token");
  TrainingSample sample;
  // Special tokens too, as MiniMind's own sets spell them: who writes the training text writes the model.
  sample.tokens = tokenizer_.encode(Line(line).string("text"), SpecialTokens::kParse);
  if (options_.style != SampleStyle::kDecember2025) {
    const std::size_t marks = tokenizer_.bos_id() ? 2 : 1;
    const std::size_t room = static_cast<std::size_t>(options_.max_length) - marks;
    if (options_.style == SampleStyle::kCanonical && sample.tokens.size() > room) sample.tokens.resize(room);
    if (tokenizer_.bos_id()) sample.tokens.insert(sample.tokens.begin(), *tokenizer_.bos_id());
    sample.tokens.push_back(*tokenizer_.eos_id());
  }
  sample.scored.assign(sample.tokens.size(), 1);
  if (const auto pad = tokenizer_.pad_id(); pad && pad != tokenizer_.eos_id())
    for (std::size_t i = 0; i < sample.tokens.size(); ++i) sample.scored[i] = sample.tokens[i] != *pad;
  cut(sample, options_.max_length);
  return sample;
}

TrainingSample SampleMaker::sample_of(std::span<const ChatMessage> messages, const TemplateVariables& variables) const {
  if (!no_turns_.empty()) throw std::runtime_error(no_turns_);
  RenderedChat chat;
  try {
    chat = template_->render_marked(messages, false, variables);
  } catch (const std::runtime_error& error) {
    refuse(error.what());
  }
  TrainingSample sample;
  const auto append = [&](std::size_t begin, std::size_t end, bool scored) {
    if (static_cast<int64_t>(sample.tokens.size()) >= options_.max_length) return;
    const std::vector<int32_t> ids = tokenizer_.encode_rendered(chat, begin, end);
    sample.tokens.insert(sample.tokens.end(), ids.begin(), ids.end());
    sample.scored.resize(sample.tokens.size(), scored);
  };
  std::size_t done = 0;
  for (const ChatMessage& message : messages) {
    if (message.role != "assistant") continue;
    const std::size_t header = find_written(chat, header_, done);
    const std::size_t begin = header + header_.text.size();
    const std::size_t ending = header == std::string::npos ? header : find_written(chat, ending_, begin);
    if (ending == std::string::npos)
      refuse("the chat template does not show every answer as it prompts for one: which tokens to learn is unknown");
    append(done, begin, false);
    done = ending + ending_.text.size();
    append(begin, done, true);
  }
  if (find_written(chat, header_, done) != std::string::npos)
    refuse("the chat template shows more answers than the conversation has");
  append(done, chat.text.size(), false);
  if (options_.style == SampleStyle::kFork) score_as_fork(sample);
  cut(sample, options_.max_length);
  return sample;
}

void SampleMaker::score_as_fork(TrainingSample& sample) const {
  std::fill(sample.scored.begin(), sample.scored.end(), 0);
  const auto begin = sample.tokens.begin(), end = sample.tokens.end();
  for (auto at = begin;;) {
    at = std::search(at, end, header_ids_.begin(), header_ids_.end());
    if (at == end) return;
    at += static_cast<std::ptrdiff_t>(header_ids_.size());
    auto stop = tokenizer_.eos_id() ? std::find(at, end, *tokenizer_.eos_id()) : end;
    if (stop != end) ++stop;
    std::fill(sample.scored.begin() + (at - begin), sample.scored.begin() + (stop - begin), 1);
    at = stop;
  }
}

TrainingSample SampleMaker::conversation(std::string_view text) const {
  const Line line(text);
  const std::vector<ChatMessage> messages = answered_messages_of(line, "conversations");
  return sample_of(messages, tools_of(line, "conversations"));
}

PreferencePair SampleMaker::preference(std::string_view text) const {
  const Line line(text);
  const auto side = [&](const char* key) {
    if (!line.at(key, "a list of messages").is_string())
      return sample_of(answered_messages_of(line, key), tools_of(line, key));
    const bool has_messages = line.json().contains("conversations");
    std::vector<ChatMessage> messages;
    if (has_messages) {
      messages = messages_of(line, "conversations");
    } else {
      std::string prompt = line.string("prompt");
      messages.push_back({"user", std::move(prompt), ""});
    }
    std::string answer = line.string(key);
    messages.push_back({"assistant", std::move(answer), ""});
    return sample_of(messages, has_messages ? tools_of(line, "conversations") : TemplateVariables{});
  };
  PreferencePair pair{side("chosen"), side("rejected")};
  if (options_.style == SampleStyle::kFork)
    for (TrainingSample* sample : {&pair.chosen, &pair.rejected}) {
      std::fill(sample->scored.begin(), sample->scored.end(), 1);
      cut(*sample, options_.max_length);
    }
  return pair;
}

}  // namespace troupe
