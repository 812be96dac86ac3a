#include <CLI/CLI.hpp>
#include <map>
#include <memory>

#include "launcher/commands.hpp"
#include "launcher/model_options.hpp"
#include "launcher/terminal.hpp"

namespace troupe {
namespace {

constexpr const char* kChatFooter =
    "A line is a turn; /help lists the commands of the talk (/clear, /system, /regen, /set, /save, /exit). What the\n"
    "model thinks (<think>) is dimmed on a terminal. Ctrl-C stops an answer, twice leaves. Over a pipe only answers "
    "go\n"
    "to stdout; figures and remarks go to stderr. Flags may be written with - or with _.\n"
    "Examples:\n"
    "  troupe chat --load-from models/SmolLM2-135M-Instruct.Q4_1.gguf --system \"Be brief.\"\n"
    "  troupe chat --load_from model --weight dpo --lora_weight lora_medical\n"
    "  echo \"What is 3 + 4?\" | troupe chat --load-from runs/RUN/export --temperature 0";

constexpr const char* kEvalFooter =
    "Modes:\n"
    "  auto        eight fixed prompts (Chinese), each answered with the same random numbers\n"
    "  manual      your prompts from stdin until an empty line\n"
    "  perplexity  of --data: a text file, or .jsonl with \"text\" in each line. Windows of --max-length tokens, each\n"
    "              --stride further on; every token but a text's first is scored once.\n"
    "  choice      multiple choice by probability, no text is generated. --data: a .csv or .jsonl file, or the folder "
    "of\n"
    "              C-Eval (val), CMMLU or MMLU (test). JSON lines: {\"question\", \"choices\", \"answer\"[, "
    "\"subject\"]}.\n"
    "Without --mode it asks: 0 is auto, 1 manual.\n"
    "\n"
    "A choice is the letter with the largest probability after this prompt (CUE: \"答案：\" for C-Eval and CMMLU, "
    "else\n"
    "\"Answer:\"):\n"
    "  QUESTION\\nA. OPTION\\nB. OPTION\\nC. OPTION\\nD. OPTION\\nCUE\n"
    "The letters are bare (\"A\") after the Chinese cue and have a space (\" A\") after the English one; --letters "
    "decides\n"
    "otherwise. --score options asks QUESTION\\nCUE and compares the options' texts by the sum of their tokens'\n"
    "log-probabilities (--normalise: the mean). --shots K puts K examples of the subject's dev file in front, each "
    "with\n"
    "its answer, with blank lines between. Intervals are Wilson's of 95 %.\n"
    "\n"
    "Examples:\n"
    "  troupe eval --load_from model --weight full_sft --mode auto\n"
    "  echo 0 | troupe eval --load_from model --weight reason\n"
    "  troupe eval --mode perplexity --load-from runs/RUN/export --data book.txt --max-length 1024 --stride 512\n"
    "  troupe eval --mode choice --load-from models/x.gguf --data ceval --shots 5 --output ceval.json";

void add_talk_options(CLI::App* command, ChatOptions& options) {
  add_model_options(command, options.model);
  add_sampling_options(command, options.sampling);
  command->add_option("--system", options.system, "system prompt");
  command->add_option("--thinking", options.thinking,
                      "0 or 1: the template's enable_thinking; not given: 1 for --weight reason, else unset");
  command->add_option("--seed", options.seed, "decides every random number")->capture_default_str();
  command->add_option("--show-speed", options.show_speed, "0 or 1: tokens a second after each answer")
      ->capture_default_str();
  add_compute_options(command, options.compute);
}

CLI::Option* add_history(CLI::App* command, int64_t& historys, const std::string& about) {
  return command->add_option("--historys,--history", historys, about)->check(CLI::Range(-1, 1'000'000));
}

void add_chat(CLI::App& app, const RoleCalls& calls, int& exit_code) {
  const auto options = std::make_shared<ChatOptions>();
  CLI::App* command = app.add_subcommand("chat", "talk with a model");
  command->option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  add_talk_options(command, *options);
  add_history(command, options->historys, "earlier messages that the model sees; -1: all")->capture_default_str();
  command->add_option("--dtype", options->compute.dtype, "what is computed in")
      ->check(CLI::IsMember({"bf16", "f32"}))
      ->capture_default_str();
  command->footer(kChatFooter);
  command->callback([options, calls, &exit_code] {
    options->dim = live_terminal() && terminal_options().colour;
    exit_code = calls.chat(*options);
  });
}

void add_eval(CLI::App& app, const RoleCalls& calls, int& exit_code) {
  static const std::map<std::string, EvalMode> kModes{{"auto", EvalMode::kAutomatic},
                                                      {"manual", EvalMode::kManual},
                                                      {"perplexity", EvalMode::kPerplexity},
                                                      {"choice", EvalMode::kChoice}};
  struct Arguments {
    EvalOptions options;
    std::string mode;
  };
  const auto arguments = std::make_shared<Arguments>();
  EvalOptions& options = arguments->options;
  options.chat.historys = 0;
  options.chat.compute.dtype.clear();
  CLI::App* command = app.add_subcommand("eval", "test a model: fixed prompts, perplexity, multiple choice");
  command->option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  command->add_option("--mode", arguments->mode, "auto, manual, perplexity, choice; not given: asked")
      ->check(CLI::IsMember({"auto", "manual", "perplexity", "choice"}));
  add_talk_options(command, options.chat);
  add_history(command, options.chat.historys, "earlier messages that the model sees, an even number")
      ->capture_default_str();
  command
      ->add_option("--dtype", options.chat.compute.dtype,
                   "what is computed in: bf16, f32; not given: bf16 for answers, f32 for perplexity and choice")
      ->check(CLI::IsMember({"bf16", "f32"}));
  CLI::Option_group* figures = command->add_option_group("Figures");
  figures->add_option("--data", options.data, "perplexity, choice: what to measure on");
  figures->add_option("--output", options.output, "JSON file to write the figures to");
  figures->add_flag("--bos", options.bos, "put the model's bos before every text, even if its tokenizer does not");
  figures->add_option("--max-length", options.max_length, "perplexity: tokens a window; 0: the context, at most 2048")
      ->check(CLI::NonNegativeNumber);
  figures->add_option("--stride", options.stride, "perplexity: tokens from window to window; 0: half of --max-length")
      ->check(CLI::NonNegativeNumber);
  figures->add_option("--split", options.split, "choice: subfolder of --data; not given: val (C-Eval) or test");
  figures->add_option("--shots", options.shots, "choice: examples before each question, from the subject's dev file")
      ->check(CLI::Range(0, 1000))
      ->capture_default_str();
  figures->add_option("--score", options.score, "choice: what is compared, letters or options")
      ->check(CLI::IsMember({"letters", "options"}))
      ->capture_default_str();
  figures->add_option("--letters", options.letters, "choice: auto, bare (\"A\") or space (\" A\")")
      ->check(CLI::IsMember({"auto", "bare", "space"}))
      ->capture_default_str();
  figures->add_flag("--normalise", options.normalise,
                    "choice: log-probability per token, for options of unequal length");
  figures->add_option("--cue", options.cue, "choice: what stands before the answer");
  command->footer(kEvalFooter);
  command->callback([arguments, calls, &exit_code] {
    EvalOptions& o = arguments->options;
    if (!arguments->mode.empty()) o.mode = kModes.at(arguments->mode);
    const bool figures = o.mode == EvalMode::kPerplexity || o.mode == EvalMode::kChoice;
    if (o.chat.compute.dtype.empty()) o.chat.compute.dtype = figures ? "f32" : "bf16";
    o.chat.dim = live_terminal() && terminal_options().colour;
    exit_code = calls.eval(o);
  });
}

void add_convert(CLI::App& app, const RoleCalls& calls, int& exit_code) {
  const auto options = std::make_shared<ConvertOptions>();
  CLI::App* command = app.add_subcommand("convert", "write a model in another form");
  command->option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  add_model_options(command, options->model);
  command->add_option("--to", options->to, "a Hugging Face folder, or NAME.pth for MiniMind's own form")->required();
  command
      ->add_option("--dtype", options->dtype, "f16, bf16, f32; not given: f16 from and to MiniMind's form, else bf16")
      ->check(CLI::IsMember({"f16", "bf16", "f32"}));
  command->footer(
      "Reads Hugging Face folders, GGUF files and MiniMind's .pth. A folder is written in the form of Llama (of "
      "MiniMind\n"
      "for experts, of Qwen where the model is one) and opens in transformers, vLLM and llama.cpp's converter. A "
      "model\n"
      "in --to is replaced, any other folder refused. --lora-weight merges an adapter in; --inference-rope-scaling "
      "writes YaRN "
      "into\n"
      "config.json.\n"
      "Examples:\n"
      "  troupe convert --load_from model --weight full_sft --to MiniMind2-Small\n"
      "  troupe convert --load_from model --weight dpo --lora_weight lora_medical --to minimind-medical\n"
      "  troupe convert --load-from MiniMind2-Small --to out/full_sft_512.pth\n"
      "  troupe convert --load-from models/SmolLM2-135M-Instruct.Q4_1.gguf --to smollm2 --dtype bf16");
  command->callback([options, calls, &exit_code] { exit_code = calls.convert(*options); });
}

}  // namespace

void add_chat_commands(CLI::App& app, const RoleCalls& calls, int& exit_code) {
  add_chat(app, calls, exit_code);
  add_eval(app, calls, exit_code);
  add_convert(app, calls, exit_code);
}

}  // namespace troupe
