#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "core/data/arithmetic.hpp"
#include "launcher/commands.hpp"

namespace troupe {
namespace {

namespace fs = std::filesystem;

void add_arithmetic(CLI::App* data, int& exit_code) {
  struct Arguments {
    ArithmeticConfig config;
    std::string train, held_out;
  };
  const auto arguments = std::make_shared<Arguments>();
  ArithmeticConfig& config = arguments->config;
  config.num_heldout = 100;
  CLI::App* command = data->add_subcommand("arithmetic", "two-number arithmetic asked in plain words, with answers");
  command->add_option("--train", arguments->train, "JSON-lines file of training prompts to write")->required();
  command->add_option("--held-out", arguments->held_out, "JSON-lines file of held-out prompts to write")->required();
  command->add_option("--low", config.low, "smallest number")->capture_default_str();
  command->add_option("--high", config.high, "largest number")->capture_default_str();
  command->add_option("--operation", config.operations, "+, - or * (may be repeated)")->allow_extra_args(false);
  command->add_option("--question", config.question, "the prompt, with {a}, {op} and {b}")->capture_default_str();
  command->add_option("--num-held-out", config.num_heldout, "held-out prompts")->capture_default_str();
  command->add_option("--num-train", config.num_train, "training prompts; 0: all that are not held out")
      ->capture_default_str();
  command->add_option("--seed", config.seed, "decides which prompts are held out")->capture_default_str();
  command->footer(
      "No pair of numbers stands in both files, in either order.\n"
      "Example:\n  troupe data arithmetic --high 20 --train data/train.jsonl --held-out data/held_out.jsonl");
  command->callback([arguments, &exit_code] {
    const auto file = [](const std::string& path) { return fs::weakly_canonical(fs::absolute(path)); };
    if (file(arguments->train) == file(arguments->held_out))
      throw CLI::ValidationError("--held-out", "is the file of --train; expected another");
    const ArithmeticTask task = make_arithmetic(arguments->config);
    write_questions(task.train, arguments->train);
    write_questions(task.heldout, arguments->held_out);
    std::printf("%s: %zu prompts\n%s: %zu prompts\n", arguments->train.c_str(), task.train.size(),
                arguments->held_out.c_str(), task.heldout.size());
    exit_code = 0;
  });
}

void add_tiny_model(CLI::App* data, const RoleCalls& calls, int& exit_code) {
  const auto options = std::make_shared<TinyModelOptions>();
  CLI::App* command =
      data->add_subcommand("tiny-model", "a byte-level model made on the spot, taught the prompts badly");
  command->add_option("--to", options->to, "Hugging Face folder to make; a model that is there is replaced")
      ->required();
  command->add_option("--prompts", options->prompts, "JSON-lines file to teach from; needed unless --steps is 0");
  command->add_option("--steps", options->steps, "training steps; 0: random weights")->capture_default_str();
  command->add_option("--hidden", options->hidden_size, "width, a multiple of 8")->capture_default_str();
  command->add_option("--layers", options->num_layers, "layers")->capture_default_str();
  command->add_option("--wrong-share", options->wrong_share, "share of answers that are taught one too many, 0 to 1")
      ->capture_default_str();
  command->add_option("--seed", options->seed, "of weights and lessons")->capture_default_str();
  command->footer("Example:\n  troupe data tiny-model --prompts data/train.jsonl --to models/tiny");
  command->callback([options, &calls, &exit_code] {
    if (options->steps > 0 && options->prompts.empty())
      throw CLI::ValidationError("--prompts", "needed unless --steps is 0");
    calls.tiny_model(*options, [](const std::string& line) { std::printf("%s\n", line.c_str()); });
    std::printf("%s: made\n", options->to.c_str());
    exit_code = 0;
  });
}

}  // namespace

void add_data_commands(CLI::App& app, const RoleCalls& calls, int& exit_code) {
  CLI::App* data = app.add_subcommand("data", "write data sets and a tiny model for a first run");
  data->require_subcommand(1);
  add_arithmetic(data, exit_code);
  add_tiny_model(data, calls, exit_code);
}

}  // namespace troupe
