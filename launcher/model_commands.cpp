#include <CLI/CLI.hpp>
#include <memory>

#include "launcher/commands.hpp"
#include "launcher/run_folder.hpp"

namespace troupe {
namespace {

void add_generate(CLI::App& app, const RoleCalls& calls, int& exit_code) {
  const auto options = std::make_shared<GenerateOptions>();
  Sampling& sampling = options->sampling;
  CLI::App* generate = app.add_subcommand("generate", "let a model answer a prompt");
  generate->add_option("--model", options->model, "Hugging Face folder or GGUF file")->required();
  generate->add_option("--prompt", options->prompt, "the text to go on from")->required();
  generate->add_flag("--chat", options->chat, "the prompt is a user's turn of the model's chat template");
  generate->add_option("--system", options->system, "system prompt (with --chat)")->needs("--chat");
  generate->add_option("--max-new-tokens", sampling.max_new_tokens, "longest answer, tokens")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  generate->add_option("--temperature", sampling.temperature, "0: always the likeliest token")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  generate->add_option("--top-k", sampling.top_k, "only the K likeliest tokens; 0: off")
      ->check(CLI::Range(0, 1'000'000'000))
      ->capture_default_str();
  generate->add_option("--top-p", sampling.top_p, "only the likeliest tokens that make up this share; 1: off")
      ->check(CLI::Range(0.000001, 1.0))
      ->capture_default_str();
  generate->add_option("--min-p", sampling.min_p, "no token below this share of the likeliest's; 0: off")
      ->check(CLI::Range(0.0, 0.999999))
      ->capture_default_str();
  generate->add_option("--repetition-penalty", sampling.repetition_penalty, "1: off")
      ->check(CLI::Range(0.01, 100.0))
      ->capture_default_str();
  generate->add_option("--stop", sampling.stop, "the answer ends before this text (may be repeated)")
      ->allow_extra_args(false);
  generate->add_option("--count", options->count, "answers")->check(CLI::Range(1, 1024))->capture_default_str();
  generate->add_option("--seed", options->seed, "decides every random number")->capture_default_str();
  generate->add_option("--threads", options->threads, "0: all cores")->check(CLI::Range(0, 4096));
  generate->add_option("--dtype", options->dtype, "what is computed in")
      ->check(CLI::IsMember({"bf16", "f32"}))
      ->capture_default_str();
  generate->footer(
      "Examples:\n"
      "  troupe generate --model models/SmolLM2-135M-Instruct.Q4_1.gguf --chat --prompt \"What is 3 + 4?\"\n"
      "  troupe generate --model runs/RUN/export --prompt \"Once upon\" --temperature 0.8 --count 4");
  generate->callback([options, calls, &exit_code] { exit_code = calls.generate(*options); });
}

void add_export(CLI::App& app, const RoleCalls& calls, int& exit_code) {
  struct Arguments {
    std::string run, to;
    std::optional<uint64_t> step;
  };
  const auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("export", "write a run's policy as a Hugging Face folder");
  command->add_option("RUN", arguments->run, "the run's folder")->required();
  command->add_option("--step", arguments->step, "of which checkpoint; the last one if not given");
  command->add_option("--to", arguments->to, "the folder to write; a model that is there is replaced")->required();
  command->footer("Example:\n  troupe export runs/RUN --to my-model\n  (my-model then opens in transformers and vLLM)");
  command->callback([arguments, calls, &exit_code] {
    require_run(arguments->run);
    exit_code = calls.export_model(arguments->run, arguments->step, arguments->to);
  });
}

}  // namespace

void add_model_commands(CLI::App& app, const RoleCalls& calls, int& exit_code) {
  add_generate(app, calls, exit_code);
  add_export(app, calls, exit_code);
}

}  // namespace troupe
