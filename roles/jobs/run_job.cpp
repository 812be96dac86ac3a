#include "roles/jobs/run_job.hpp"

#include <ATen/Parallel.h>

#include <cstdio>
#include <set>
#include <sstream>
#include <thread>

#include "core/io/model_folder.hpp"
#include "core/models/minimind.hpp"
#include "roles/compute.hpp"
#include "roles/jobs/start_model.hpp"
#include "roles/jobs/trainer.hpp"
#include "roles/model_source.hpp"

namespace troupe {
namespace {

template <class... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};

void require(bool holds, const std::string& flag, const std::string& given, const std::string& expected) {
  if (!holds) throw std::invalid_argument("--" + flag + ": " + given + ", expected " + expected);
}

at::ScalarType compute_type(const JobConfig& config) {
  return config.dtype == "float32" ? at::kFloat : at::kBFloat16;
}

TrainConfig train_config(const JobConfig& config) {
  return {.compute = compute_type(config),
          .gradient_checkpointing = config.gradient_checkpointing == 1,
          .adamw = {.learning_rate = config.learning_rate, .weight_decay = 0.01, .decay_norms_and_biases = true},
          .micro_batch_tokens = config.micro_batch_tokens,
          .max_grad_norm = config.grad_clip,
          .device = usable_device(config.device, "--device")};
}

std::unique_ptr<TrainEngine> frozen_engine(const StartModel& model, const JobConfig& config) {
  TrainConfig train = train_config(config);
  train.frozen = true;
  return std::make_unique<TrainEngine>(model.config, model.weights, train);
}

LoraConfig lora_config(const LoraJob& job, const DecoderConfig& model, const Compat& compat) {
  const double alpha = compat.fork_lora ? kForkLoraAlpha : static_cast<double>(job.lora_rank);
  LoraConfig lora{.rank = job.lora_rank, .alpha = job.lora_alpha > 0 ? job.lora_alpha : alpha};
  if (!job.lora_targets.empty()) {
    lora.target_modules.clear();
    std::istringstream list(job.lora_targets);
    const std::string expected = model.moe.experts > 0 ? "q_proj,k_proj,v_proj,o_proj"
                                                       : "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj";
    for (std::string target; std::getline(list, target, ',');) {
      require(("," + expected + ",").find("," + target + ",") != std::string::npos, "lora_targets", "'" + target + "'",
              "names of " + expected);
      lora.target_modules.push_back(target);
    }
    return lora;
  }
  lora.target_modules = {"q_proj", "k_proj", "v_proj"};
  if (compat.fork_lora) return lora;
  // MiniMind: every square layer.
  lora.target_modules = {"o_proj"};
  if (model.num_heads * model.head_dim == model.hidden_size)
    lora.target_modules.insert(lora.target_modules.begin(), "q_proj");
  return lora;
}

// The tokens that the reasoning tags are made of.
std::vector<int32_t> tag_tokens(const Tokenizer& tokenizer) {
  std::set<int32_t> tokens;
  for (const char* tag : {"<think>", "</think>", "<answer>", "</answer>"})
    for (const int32_t id : tokenizer.encode(tag)) tokens.insert(id);
  return {tokens.begin(), tokens.end()};
}

// "25.8 M parameters, 0.131 M of them trained"
std::string describe(const DecoderConfig& config, TrainEngine& engine) {
  const auto millions = [](int64_t count) {
    char text[32];
    std::snprintf(text, sizeof(text), "%.4g M", static_cast<double>(count) / 1e6);
    return std::string(text);
  };
  const int64_t all = parameter_count(config), trained = engine.model().trainable()->parameters();
  std::string out = millions(all) + " parameters";
  if (config.moe.experts > 0) out += ", " + millions(active_parameter_count(config)) + " of them for a token";
  if (trained < all) out += ", " + millions(trained) + " of them trained";
  return out;
}

// "2 processes, each with 103.3 MB of the optimizer's moments"
std::string optimizer_text(const TrainEngine& engine, int processes) {
  char text[96];
  std::snprintf(text, sizeof(text), "%d processes, each with %.4g MB of the optimizer's moments", processes,
                static_cast<double>(engine.optimizer_bytes()) / 1e6);
  return text;
}

struct Weights {
  std::string from;
  int64_t hidden_size, num_layers;
};

Weights start_of(const JobRequest& job) {
  if (const auto* distill = std::get_if<DistillJob>(&job.kind))
    return {distill->from_student_weight, distill->student_hidden_size, distill->student_num_layers};
  return {job.config.from_weight, job.config.hidden_size, job.config.num_hidden_layers};
}

const std::string& save_name(const JobRequest& job) {
  const auto* lora = std::get_if<LoraJob>(&job.kind);
  return lora ? lora->lora_name : job.config.save_weight;
}

std::unique_ptr<Objective> objective_of(const JobRequest& job, const StartModel& start, const Tokenizer& tokenizer,
                                        const Compat& compat) {
  const JobConfig& config = job.config;
  return std::visit(
      Overloaded{
          [&](const PretrainJob&) { return pretrain_objective(); },
          [&](const SftJob&) { return conversation_objective(); },
          [&](const LoraJob&) { return conversation_objective(); },
          [&](DpoJob dpo) {
            if (dpo.dpo_logprob.empty()) dpo.dpo_logprob = compat.dpo_mean ? "mean" : "sum";
            return dpo_objective(dpo, frozen_engine(start, config), compat.dpo_balances);
          },
          [&](const RewardJob& reward) { return reward_objective(reward); },
          [&](const DistillJob& distill) {
            const StartModel teacher = start_model(config, distill.from_teacher_weight, distill.teacher_hidden_size,
                                                   distill.teacher_num_layers, compat);
            return distill_objective(distill, frozen_engine(teacher, config));
          },
          [&](const DistillReasonJob& reason) { return reason_objective(tag_tokens(tokenizer), reason.tag_weight); }},
      job.kind);
}

void positive(const char* flag, int64_t value) {
  require(value >= 1, flag, std::to_string(value), "at least 1");
}
void above_zero(const char* flag, double value) {
  require(value > 0, flag, std::to_string(value), "more than 0");
}
void not_negative(const char* flag, double value) {
  require(value >= 0, flag, std::to_string(value), "at least 0");
}

void check_own(const PretrainJob&) {}
void check_own(const SftJob&) {}
void check_own(const LoraJob& lora) {
  positive("lora_rank", lora.lora_rank);
  not_negative("lora_alpha", lora.lora_alpha);
}
void check_own(const DpoJob& dpo) {
  above_zero("beta", dpo.beta);
  require(dpo.dpo_logprob.empty() || dpo.dpo_logprob == "sum" || dpo.dpo_logprob == "mean", "dpo_logprob",
          "'" + dpo.dpo_logprob + "'", "sum or mean");
  require(dpo.label_smoothing >= 0 && dpo.label_smoothing < 0.5, "label_smoothing", std::to_string(dpo.label_smoothing),
          "at least 0 and less than 0.5");
}
void check_own(const RewardJob& reward) {
  not_negative("least_margin", reward.least_margin);
}
void check_own(const DistillJob& distill) {
  positive("student_num_layers", distill.student_num_layers);
  positive("teacher_num_layers", distill.teacher_num_layers);
  require(distill.alpha >= 0 && distill.alpha <= 1, "alpha", std::to_string(distill.alpha), "0 to 1");
  above_zero("temperature", distill.temperature);
}
void check_own(const DistillReasonJob& reason) {
  above_zero("tag_weight", reason.tag_weight);
}

// "cuda" is the rank's own GPU; "auto" that, where there is one.
std::string device_of(const std::string& wanted, const JobRank& rank) {
  if (wanted == "auto" && !at::hasCUDA()) return "cpu";
  if (wanted != "auto" && wanted != "cuda") return wanted;
  const auto gpus = static_cast<int>(std::max<std::size_t>(at::getNumGPUs(), 1));
  return "cuda:" + std::to_string(rank.local % gpus);
}

}  // namespace

void check_job(const JobRequest& job) {
  const JobConfig& c = job.config;
  const auto binary = [](const char* flag, int64_t value) {
    require(value == 0 || value == 1, flag, std::to_string(value), "0 or 1");
  };
  positive("epochs", c.epochs);
  positive("batch_size", c.batch_size);
  positive("num_workers", c.num_workers);
  positive("accumulation_steps", c.accumulation_steps);
  positive("log_interval", c.log_interval);
  positive("save_interval", c.save_interval);
  positive("nproc", c.nproc);
  require(c.max_seq_len >= 4, "max_seq_len", std::to_string(c.max_seq_len), "at least 4");
  binary("use_moe", c.use_moe);
  binary("from_resume", c.from_resume);
  binary("pack", c.pack);
  binary("gradient_checkpointing", c.gradient_checkpointing);
  binary("zero", c.zero);
  not_negative("micro_batch_tokens", static_cast<double>(c.micro_batch_tokens));
  not_negative("max_steps", static_cast<double>(c.max_steps));
  not_negative("threads", static_cast<double>(c.threads));
  above_zero("learning_rate", c.learning_rate);
  not_negative("grad_clip", c.grad_clip);
  require(c.dtype == "bfloat16" || c.dtype == "float32", "dtype", "'" + c.dtype + "'", "bfloat16 or float32");
  require(c.on_malformed == "stop" || c.on_malformed == "skip", "on_malformed", "'" + c.on_malformed + "'",
          "stop or skip");
  require(!save_name(job).empty() && save_name(job).find('/') == std::string::npos, "save_weight",
          "'" + save_name(job) + "'", "a name without '/'");
  std::visit([](const auto& own) { check_own(own); }, job.kind);
  compat_of(c.compat);
}

std::string job_name(const JobRequest& job) {
  const Weights from = start_of(job);
  if (is_model_path(from.from)) return output_name(save_name(job), load_config(from.from));
  return output_name(save_name(job), minimind_config(from.hidden_size, from.num_layers, job.config.use_moe == 1));
}

void run_job(const JobRequest& request, const JobRank& rank, const std::filesystem::path& run_folder,
             const JobHooks& hooks) {
  check_job(request);
  JobRequest job = request;
  job.config.device = device_of(request.config.device, rank);
  const JobConfig& config = job.config;
  const auto cores = static_cast<int>(std::thread::hardware_concurrency());
  at::set_num_threads(config.threads > 0 ? static_cast<int>(config.threads) : std::max(1, cores / rank.on_host));
  const auto tell = [&](const std::string& line) {
    if (rank.rank == 0 && hooks.on_event) hooks.on_event(line);
  };
  const Compat compat = compat_of(config.compat);
  if (rank.rank == 0)  // before hours of training are lost to it
    for (const std::string& folder : {config.save_dir, config.checkpoint_dir}) require_writable(folder);
  JobGroup group(rank);  // before anything is loaded: a rank that is missing or not let in is known at once
  const auto find_lines = [&](const std::string& file) {
    const std::string what = "finding the lines of " + std::filesystem::path(file).filename().string();
    return JsonLines(file, [&](uint64_t done, uint64_t total) {
      if (stop_asked(hooks)) throw std::runtime_error("stopped while " + what);
      if (rank.rank == 0 && hooks.on_preparing)
        hooks.on_preparing(what, static_cast<double>(done) / static_cast<double>(total));
    });
  };
  const JsonLines lines = find_lines(config.data_path);
  std::optional<JsonLines> held_out;
  if (!config.eval_path.empty()) held_out.emplace(find_lines(config.eval_path));
  const Weights from = start_of(job);
  StartModel start = start_model(config, from.from, from.hidden_size, from.num_layers, compat);
  const Tokenizer tokenizer = load_tokenizer(start.tokenizer);
  if (tokenizer.vocab_size() > start.config.vocab_size)
    throw std::runtime_error(start.tokenizer.string() + ": " + std::to_string(tokenizer.vocab_size()) +
                             " tokens, but the model knows " + std::to_string(start.config.vocab_size));
  const SampleMaker maker(tokenizer, {.max_length = config.max_seq_len, .style = compat.samples});
  TrainConfig train = train_config(config);
  if (const auto* lora = std::get_if<LoraJob>(&job.kind)) {
    train.lora = lora_config(*lora, start.config, compat);
    start.weights.merge(
        initial_adapters(start.config, *train.lora, static_cast<uint64_t>(config.seed), compat.fork_lora));
  }
  train.score_head = std::holds_alternative<RewardJob>(job.kind);
  if (rank.size > 1 && config.zero == 1) train.shards = &group;
  const std::unique_ptr<Objective> objective = objective_of(job, start, tokenizer, compat);
  TrainEngine engine(start.config, start.weights, train);
  start.weights.clear();
  release_load_memory();
  tell(describe(start.config, engine) + ", " + std::to_string(lines.size()) + " samples of " + config.data_path);
  if (rank.size > 1) tell(optimizer_text(engine, rank.size));
  if (config.use_wandb) tell("--use_wandb: no external tracker here; the figures are in " + run_folder.string());
  const JobOutput output(config, compat, output_name(save_name(job), start.config), start.config, start.tokenizer,
                         start.origin);
  Trainer trainer({.config = config,
                   .compat = compat,
                   .maker = maker,
                   .lines = lines,
                   .held_out = held_out ? &*held_out : nullptr,
                   .objective = *objective,
                   .engine = engine,
                   .output = output,
                   .group = group,
                   .hooks = hooks,
                   .pad_token = tokenizer.pad_id().value_or(0),
                   .saves_by_epoch = train.lora.has_value()},
                  run_folder);
  trainer.run();
}

}  // namespace troupe
