// The single-role jobs: a subcommand each, a flag for every field of their settings.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <memory>

#include "core/config.hpp"
#include "launcher/commands.hpp"
#include "launcher/play_job.hpp"

namespace troupe {
namespace {

// What a flag is for; every field of JobConfig and of the jobs stands here (a test compares).
const std::map<std::string_view, const char*> kHelp{
    {"save_dir", "folder of the outputs"},
    {"save_weight", "outputs are called NAME_<hidden_size>[_moe]"},
    {"epochs", "passes over the data"},
    {"batch_size", "samples of a batch, per process"},
    {"learning_rate", "at the start; ends at a tenth of it"},
    {"device", "cpu, cuda (each rank its own), cuda:N; auto: a GPU where there is one"},
    {"dtype", "computed in bfloat16 or float32; weights are kept in float32"},
    {"num_workers", "threads that tokenise ahead"},
    {"accumulation_steps", "batches of one optimizer step"},
    {"grad_clip", "largest norm of a gradient; 0: off"},
    {"log_interval", "batches between two lines of metrics"},
    {"save_interval", "batches between two saves (lora: epochs)"},
    {"hidden_size", "width of the model, where its weights are MiniMind's"},
    {"num_hidden_layers", "depth of the model, likewise"},
    {"max_seq_len", "longest sample, tokens; a longer one is cut"},
    {"use_moe", "1: mixture of experts"},
    {"data_path", "JSON lines to train on"},
    {"from_weight", "a name in --save_dir or out/, a model folder, a .gguf file, or none"},
    {"from_resume", "1: go on from the last checkpoint"},
    {"use_wandb", "accepted; figures are in the run folder either way"},
    {"wandb_project", "accepted"},
    {"tokenizer", "tokenizer folder, where the weights bring none"},
    {"checkpoint_dir", "folder of the checkpoints that --from_resume reads"},
    {"run_folder", "metrics and report; default runs/<name of the outputs>"},
    {"eval_path", "held-out lines, measured before and after"},
    {"pack", "1: no padding is computed; 0: samples are padded to --max_seq_len"},
    {"seed", "of random initial weights and adapters"},
    {"max_steps", "ends after so many batches; 0: no limit"},
    {"micro_batch_tokens", "tokens computed at once: fewer take less memory, more are faster; 0: the whole batch"},
    {"gradient_checkpointing", "1: less memory, slower"},
    {"threads", "of each process; 0: the cores shared out"},
    {"nproc", "processes that train together"},
    {"zero", "1: these share out the optimizer's state; 0: each keeps all of it"},
    {"on_malformed", "a line that can't be read: stop, or skip and count"},
    {"compat", "whose numbers: canonical, ref2603, ref2512, fork2601"},
    {"lora_name", "outputs are called NAME_<hidden_size>"},
    {"lora_rank", "rank of the adapters"},
    {"lora_alpha", "scale is alpha / rank; 0: 1"},
    {"lora_targets", "q_proj,v_proj,...; default: the square layers"},
    {"beta", "strength of the preference"},
    {"dpo_logprob",
     "a sequence's log-probability: sum or mean over its tokens; default sum, of --compat ref.. and fork.. mean"},
    {"label_smoothing", "share of pairs taken to be the wrong way round"},
    {"least_margin", "by how much scores should differ"},
    {"student_hidden_size", "width of the student"},
    {"student_num_layers", "depth of the student"},
    {"teacher_hidden_size", "width of the teacher"},
    {"teacher_num_layers", "depth of the teacher"},
    {"from_student_weight", "where the student's weights come from, as --from_weight elsewhere"},
    {"from_teacher_weight", "where the teacher's weights come from"},
    {"alpha", "weight of the labels; the rest is the teacher's"},
    {"temperature", "that softens both distributions"},
    {"tag_weight", "weight of the tokens of the think and answer tags"},
};

const std::map<std::string_view, const char*> kExamples{
    {"pretrain", "troupe pretrain --data_path dataset/pretrain_hq.jsonl --epochs 1 --batch_size 32"},
    {"sft",
     "troupe sft --data_path dataset/sft_mini_512.jsonl --from_weight pretrain\n"
     "  troupe sft --data_path mine.jsonl --from_weight models/SmolLM2-135M-Instruct.Q4_1.gguf --learning_rate 1e-5"},
    {"lora", "troupe lora --data_path dataset/lora_medical.jsonl --lora_name lora_medical --from_weight full_sft"},
    {"dpo", "troupe dpo --data_path dataset/dpo.jsonl --from_weight full_sft --beta 0.1"},
    {"reward", "troupe reward --data_path dataset/dpo.jsonl --from_weight full_sft"},
    {"distill", "troupe distill --teacher_hidden_size 768 --teacher_num_layers 16 --alpha 0.5 --temperature 1.5"},
    {"distill-reason", "troupe distill-reason --data_path dataset/r1_mix_1024.jsonl --from_weight dpo"},
};

// Flags of other jobs' names that this one has no use for.
bool replaced(std::string_view job, std::string_view flag) {
  if (job == "lora") return flag == "save_weight";
  if (job == "distill") return flag == "hidden_size" || flag == "num_hidden_layers" || flag == "from_weight";
  return false;
}

struct Arguments {
  JobRequest request;
  std::string config_file;
  bool plain = false;
  std::map<std::string, CLI::Option*> flags;  // by name of the field
};

template <class Settings>
void add_flags(CLI::App& command, std::string_view job, Settings& settings, Arguments& arguments) {
  std::apply(
      [&](const auto&... field) {
        [[maybe_unused]] const auto add = [&](std::string_view name, auto& value) {
          if (replaced(job, name)) return;
          std::string flag = "--" + std::string(name);
          std::ranges::replace(flag, '_', '-');  // as the command line spells them all
          const char* help = kHelp.at(name);
          CLI::Option* option = nullptr;
          if constexpr (std::is_same_v<std::remove_cvref_t<decltype(value)>, bool>)
            option = command.add_flag(flag, value, help);
          else
            option = command.add_option(flag, value, help)->capture_default_str();
          arguments.flags[std::string(name)] = option;
        };
        (add(field.name, settings.*(field.member)), ...);
      },
      Settings::kFields);
}

template <class Settings>
bool has_field(std::string_view name) {
  return std::apply([&](const auto&... field) { return (false || ... || (field.name == name)); }, Settings::kFields);
}

// A configuration file's values, where no flag was given. Its keys are the flags' names.
template <class Own>
void read_file(Arguments& arguments, Own& own) {
  const JsonFile file = read_config_file(arguments.config_file);
  Json common(to_json(arguments.request.config)), mine = Json::object();
  if constexpr (std::tuple_size_v < std::remove_cvref_t < decltype(Own::kFields) >>> 0) mine = Json(to_json(own));
  for (const auto& [key, value] : file.value.items()) {
    if (key == "job") {
      if (value != Own::kName)
        throw std::invalid_argument(file.where.key(key).prefix() + value.dump() + ", but this is troupe " +
                                    std::string(Own::kName));
      continue;
    }
    if (replaced(Own::kName, key))
      throw std::invalid_argument(file.where.key(key).prefix() + "is not a setting of " + std::string(Own::kName));
    const auto flag = arguments.flags.find(key);
    if (flag != arguments.flags.end() && flag->second->count() > 0) continue;
    (has_field<JobConfig>(key) ? common : mine)[key] = value;
  }
  arguments.request.config = from_json<JobConfig>(common, file.where);
  if constexpr (std::tuple_size_v < std::remove_cvref_t < decltype(Own::kFields) >>> 0)
    own = from_json<Own>(mine, file.where);
  else if (!mine.empty())
    throw std::invalid_argument(file.where.key(mine.begin().key()).prefix() + "unknown key");
}

template <class Job>
void add_job(CLI::App& app, const RoleCalls& calls, int& exit_code) {
  const auto arguments = std::make_shared<Arguments>();
  arguments->request = {Job::defaults(), Job{}};
  Job& own = std::get<Job>(arguments->request.kind);
  CLI::App* command = app.add_subcommand(std::string(Job::kName), std::string(Job::kSummary));
  command->option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);  // as argparse does
  add_flags(*command, Job::kName, arguments->request.config, *arguments);
  add_flags(*command, Job::kName, own, *arguments);
  command->add_option("--config", arguments->config_file, "JSON object with any of these settings; flags win");
  command->add_flag("--plain", arguments->plain, "lines instead of the live display");
  command->footer(
      "Examples:\n  " + std::string(kExamples.at(Job::kName)) +
      "\nFlags may be spelt with '_' or '-'; of one that is repeated the last counts. Ctrl-C stops cleanly with a\n"
      "checkpoint, a second one at once; --from_resume 1 goes on.");
  command->callback([arguments, &own, &calls, &exit_code] {
    if (!arguments->config_file.empty()) read_file(*arguments, own);
    try {
      calls.checked_job(arguments->request);
    } catch (const std::invalid_argument& error) {
      throw CLI::ValidationError(error.what());
    }
    exit_code = play_job(arguments->request, arguments->plain, calls);
  });
}

}  // namespace

void add_job_commands(CLI::App& app, const RoleCalls& calls, int& exit_code) {
  add_job<PretrainJob>(app, calls, exit_code);
  add_job<SftJob>(app, calls, exit_code);
  add_job<LoraJob>(app, calls, exit_code);
  add_job<DpoJob>(app, calls, exit_code);
  add_job<RewardJob>(app, calls, exit_code);
  add_job<DistillJob>(app, calls, exit_code);
  add_job<DistillReasonJob>(app, calls, exit_code);
}

}  // namespace troupe
