#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <memory>

#include "core/config.hpp"
#include "core/data/json_records.hpp"
#include "core/data/jsonl.hpp"
#include "core/io/disk.hpp"
#include "core/text/bpe_trainer.hpp"
#include "launcher/commands.hpp"

namespace troupe {

namespace {

struct Arguments {
  std::string data, out, chat_template;
  BpeTrainingOptions options;
  int64_t limit = 0;
};

void print_line(const std::string& line) {
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

// The texts of a JSON-lines file, in its order.
class TextLines {
 public:
  TextLines(const std::string& file, int64_t limit)
      : lines_(file), end_(limit > 0 ? std::min(limit, lines_.size()) : lines_.size()) {}

  std::optional<std::string_view> next() {
    if (at_ == end_) return std::nullopt;
    const std::string where = lines_.where(at_);
    const Json line = parse_json_line(lines_.line(at_++), where);
    if (!line.is_object()) throw std::runtime_error(where + ": expected a JSON object");
    text_ = record_text(line, "text", where);
    return text_;
  }

 private:
  JsonLines lines_;
  int64_t at_ = 0;
  const int64_t end_;
  std::string text_;
};

// What the tokenizer is for: a chat becomes ids and is read back, at once and token by token.
void self_test(const Tokenizer& tokenizer) {
  const std::vector<ChatMessage> chat = {{"system", "You are helpful. 你是一个有用的助手。", ""},
                                         {"user", "Where do you come from? 你来自哪里？ \U0001F30D", ""},
                                         {"assistant", "  From a training run.\n\t我来自一次训练。", ""}};
  const ChatTemplate chat_template = tokenizer.chat_template();
  const std::string text = chat_template.render(chat, false);
  const std::vector<int32_t> ids = tokenizer.encode_chat(chat_template, chat, false);
  StreamDecoder stream(tokenizer, false);
  std::string streamed;
  for (const int32_t id : ids) streamed += stream.push(id);
  streamed += stream.flush();
  if (tokenizer.decode(ids, false) != text || streamed != text)
    throw std::runtime_error("self-test: a chat does not decode to what was encoded");
  print_line("self-test: a chat of " + std::to_string(text.size()) + " bytes is " + std::to_string(ids.size()) +
             " tokens and decodes to itself");
}

void train(const Arguments& arguments) {
  const auto start = std::chrono::steady_clock::now();
  BpeTrainingOptions options = arguments.options;
  options.chat_template =
      arguments.chat_template.empty() ? kChatMlTemplate : read_file(real_disk(), arguments.chat_template);
  TextLines texts(arguments.data, arguments.limit);
  const Tokenizer tokenizer = train_bpe([&] { return texts.next(); }, options, print_line);
  tokenizer.save(arguments.out);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  std::printf("%s: %d tokens, %.1f s\n", arguments.out.c_str(), tokenizer.vocab_size(), seconds.count());
  if (tokenizer.vocab_size() < options.vocab_size)
    print_line("the texts give no more: " + std::to_string(options.vocab_size) + " tokens were asked for");
  self_test(Tokenizer::from_folder(arguments.out));
}

}  // namespace

void add_tokenizer_commands(CLI::App& app, int& exit_code) {
  CLI::App* tokenizer = app.add_subcommand("tokenizer", "train a tokenizer");
  tokenizer->require_subcommand(1);
  CLI::App* command = tokenizer->add_subcommand("train", "a byte-level BPE vocabulary, learnt from texts");
  const auto arguments = std::make_shared<Arguments>();
  command->add_option("--data", arguments->data, "JSON-lines file with the field \"text\"")->required();
  command->add_option("--out", arguments->out, "folder to write the tokenizer into")->required();
  command->add_option("--vocab-size", arguments->options.vocab_size, "tokens, special ones and bytes included")
      ->capture_default_str();
  command->add_option("--min-frequency", arguments->options.min_frequency, "a pair seen less often is not merged")
      ->capture_default_str();
  command->add_option("--limit", arguments->limit, "lines to read; 0: all")->capture_default_str();
  command->add_option("--chat-template", arguments->chat_template, "Jinja file; without it a ChatML template");
  command->footer(
      "Ids 0, 1, 2 are <|endoftext|> (pad, unk), <|im_start|> (bos), <|im_end|> (eos). The folder opens in\n"
      "transformers, and merges are those of the tokenizers library.\n"
      "Example:\n  troupe tokenizer train --data examples/data/pretrain.jsonl --out model --vocab_size 2048");
  command->callback([arguments, &exit_code] {
    train(*arguments);
    exit_code = 0;
  });
}

}  // namespace troupe
