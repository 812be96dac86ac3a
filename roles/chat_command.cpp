// A talk on the terminal, or over pipes: one line of stdin is one turn.
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <iostream>

#include "core/config.hpp"
#include "core/generate/sampler.hpp"
#include "core/io/disk.hpp"
#include "roles/answering.hpp"
#include "roles/think_display.hpp"

namespace troupe {
namespace {

constexpr int kForced = 130;
constexpr const char* kHelp =
    "/help             this list\n"
    "/system TEXT      a new system prompt, and a new talk; without TEXT: none\n"
    "/clear            forget the talk\n"
    "/regen            another answer to the last message\n"
    "/set KEY VALUE    temperature, top_p, top_k, min_p, repetition_penalty, max_new_tokens, stop; /set alone lists "
    "them\n"
    "/save FILE        add the talk to FILE as a line of training data, {\"conversations\": [...]}\n"
    "/exit             leave (so do the end of input, and Ctrl-C twice)\n"
    "Ctrl-C            stop the answer\n"
    "A line that begins with // is sent with one of them.\n";

std::atomic<int> interrupts{0};  // since the last line was read
std::atomic<bool> answering{false};

// Only what a signal handler may do.
void say_at_once(int stream, std::string_view text) {
  (void)!write(stream, text.data(), text.size());
}

void on_interrupt(int) {
  if (++interrupts >= 2) {
    if (isatty(STDOUT_FILENO)) say_at_once(STDOUT_FILENO, "\033[0m\n");
    _exit(kForced);
  }
  if (!answering) say_at_once(STDERR_FILENO, "\n(Ctrl-C again leaves)\n");
}

// Ctrl-C as above for as long as this lives.
class InterruptGuard {
 public:
  InterruptGuard() {
    struct sigaction action {};
    action.sa_handler = on_interrupt;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, &before_);
  }
  ~InterruptGuard() { sigaction(SIGINT, &before_, nullptr); }
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

 private:
  struct sigaction before_ {};
};

std::string trimmed(const std::string& text) {
  const size_t first = text.find_first_not_of(" \t\r");
  return first == text.npos ? "" : text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

void note(const std::string& line) {
  std::cerr << line << '\n';
}

class Chat {
 public:
  explicit Chat(const ChatOptions& options)
      : options_(options),
        sampling_(options.sampling),
        system_(options.system),
        answerer_(options.model, options.compute, style_of(options)) {
    check_sampling(sampling_);
  }

  int run() {
    const InterruptGuard guard;
    const bool person = isatty(STDIN_FILENO);
    if (person) note(answerer_.description() + "; /help lists the commands");
    std::string line;
    while (true) {
      if (person) std::cout << "> " << std::flush;
      if (!std::getline(std::cin, line)) break;
      interrupts = 0;
      line = trimmed(line);
      if (line.empty()) continue;
      if (line == "/exit" || line == "/quit") return 0;
      try {
        take(line);
      } catch (const std::exception& error) {
        note(std::string("troupe: ") + error.what());  // the talk goes on
      }
      answering = false;
    }
    if (person) std::cout << '\n';
    return 0;
  }

 private:
  void take(const std::string& line) {
    if (line.starts_with("//")) return say(line.substr(1));
    if (!line.starts_with('/')) return say(line);
    const size_t space = std::min(line.find(' '), line.size());
    command(line.substr(0, space), trimmed(line.substr(space)));
  }

  void command(const std::string& name, const std::string& argument) {
    if (name == "/help") {
      std::cerr << kHelp;
    } else if (name == "/clear") {
      talk_.clear();
      note("forgotten");
    } else if (name == "/system") {
      system_ = argument.empty() ? std::nullopt : std::optional(argument);
      talk_.clear();
      note(argument.empty() ? "no system prompt, a new talk" : "a new system prompt, a new talk");
    } else if (name == "/regen") {
      if (talk_.empty()) throw std::runtime_error("/regen: nothing has been said yet");
      if (talk_.back().role == "assistant") talk_.pop_back();
      answer();
    } else if (name == "/set") {
      set(argument);
    } else if (name == "/save") {
      save(argument);
    } else {
      throw std::runtime_error(name + ": no such command" +
                               suggestion(name, {"/help", "/exit", "/clear", "/system", "/save", "/regen", "/set"}));
    }
  }

  void say(const std::string& text) {
    // An interrupted or failed turn leaves its message without an answer: the new one takes its place.
    if (!talk_.empty() && talk_.back().role == "user") talk_.pop_back();
    talk_.push_back({"user", text});
    answer();
  }

  std::vector<ChatMessage> remembered() const {
    std::vector<ChatMessage> messages;
    if (system_) messages.push_back({"system", *system_});
    size_t first = 0;
    if (options_.historys >= 0 && talk_.size() > static_cast<size_t>(options_.historys) + 1)
      first = talk_.size() - 1 - static_cast<size_t>(options_.historys);
    messages.insert(messages.end(), talk_.begin() + static_cast<std::ptrdiff_t>(first), talk_.end());
    return messages;
  }

  void answer() {
    const std::vector<ChatMessage> messages = remembered();
    ThinkDisplay display(options_.dim, options_.dim && answerer_.opens_thinking(messages));
    answering = true;
    const Answered answered = answerer_.answer(
        messages, sampling_, options_.seed, draw_++,
        [&](std::string_view piece) { std::cout << display.push(piece) << std::flush; }, &interrupts);
    std::cout << display.end() << std::endl;
    if (answered.forgotten > 0)
      note("(the context is full: the oldest " + std::to_string(answered.forgotten) + " messages were left out)");
    if (options_.show_speed) note(speed_line(answered));
    if (!answered.text.empty()) talk_.push_back({"assistant", answered.text});
  }

  void set(const std::string& argument) {
    OrderedJson all = to_json(sampling_);
    if (argument.empty()) {
      for (const auto& [key, value] : all.items()) note(key + " " + value.dump());
      return;
    }
    const size_t space = std::min(argument.find_first_of(" ="), argument.size());
    std::string key = argument.substr(0, space);
    std::replace(key.begin(), key.end(), '-', '_');
    const std::string value = space < argument.size() ? trimmed(argument.substr(space + 1)) : "";
    if (value.empty()) throw std::runtime_error("/set " + key + ": expected a value, as in /set temperature 0.7");
    Json json = Json::parse(all.dump());
    const Json parsed = Json::parse(value, nullptr, false);
    json[key] = parsed.is_discarded() ? Json(value) : parsed;
    if (key == "stop" && !json[key].is_array()) json[key] = Json::array({value});
    const Sampling changed = from_json<Sampling>(json, JsonPath("/set"));
    check_sampling(changed);
    sampling_ = changed;
    note(key + " " + value);
  }

  void save(const std::string& argument) {
    if (argument.empty()) throw std::runtime_error("/save: expected a file");
    if (talk_.empty()) throw std::runtime_error("/save: nothing has been said yet");
    OrderedJson messages = OrderedJson::array();
    const auto add = [&](const std::string& role, const std::string& content) {
      messages.push_back(OrderedJson{{"role", role}, {"content", content}});
    };
    if (system_) add("system", *system_);
    for (const ChatMessage& message : talk_) add(message.role, message.content);
    const std::filesystem::path file = argument;
    const std::string before = std::filesystem::exists(file) ? read_file(real_disk(), file) : "";
    write_file_atomically(real_disk(), file, before + OrderedJson{{"conversations", messages}}.dump() + "\n");
    note(argument + ": " + std::to_string(messages.size()) + " messages");
  }

  const ChatOptions options_;
  Sampling sampling_;
  std::optional<std::string> system_;
  std::vector<ChatMessage> talk_;  // user and assistant in turn; ends with the user's while it waits for its answer
  uint64_t draw_ = 0;              // another one for each answer
  Answerer answerer_;
};

}  // namespace

int chat_command(const ChatOptions& options) {
  return Chat(options).run();
}

}  // namespace troupe
