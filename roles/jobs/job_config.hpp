// What a single-role job is told. Names and defaults of the first block are those of MiniMind's trainers, so that its
// command lines work; the second block is ours. The launcher makes a flag of every field (launcher/job_commands.cpp),
// a JSON configuration has the same names as keys.
#pragma once

#include <cstdint>
#include <string>
#include <tuple>
#include <variant>

#include "protocol/fields.hpp"

namespace troupe {

struct JobConfig {
  std::string save_dir = "out";
  std::string save_weight;  // outputs are named <save_weight>_<hidden_size>[_moe]
  int64_t epochs = 1;
  int64_t batch_size = 32;  // samples of one batch, per process
  double learning_rate = 5e-4;
  std::string device = "auto";     // "cpu", "cuda:N", "cuda": the rank's own GPU; "auto": that, where there is one
  std::string dtype = "bfloat16";  // compute; masters are float32. Or "float32"
  int64_t num_workers = 1;         // threads that tokenise ahead
  int64_t accumulation_steps = 1;  // batches of one optimizer step
  double grad_clip = 1.0;          // largest global norm of a gradient; 0: off
  int64_t log_interval = 100;      // batches
  int64_t save_interval = 100;     // batches; LoRA: epochs
  int64_t hidden_size = 512;
  int64_t num_hidden_layers = 8;
  int64_t max_seq_len = 512;  // tokens
  int64_t use_moe = 0;        // 0 or 1
  std::string data_path;
  std::string from_weight = "none";  // a name in save_dir or out, a model folder, a GGUF file, or "none"
  int64_t from_resume = 0;           // 1: go on from the checkpoint, if there is one
  bool use_wandb = false;            // an external tracker is asked for; figures are in the run folder either way
  std::string wandb_project;

  std::string tokenizer = "model";  // folder; a from_weight that is a folder or GGUF file brings its own
  std::string checkpoint_dir = "checkpoints";
  std::string run_folder;  // metrics, report; "": runs/<name of the outputs>
  std::string eval_path;   // held-out lines, measured before and after; "": none
  int64_t pack = 1;        // 0: every sample padded to max_seq_len and computed with its padding
  int64_t seed = 42;
  int64_t max_steps = 0;               // batches after which the job ends; 0: none
  int64_t micro_batch_tokens = 2048;   // computed at once; 0: the whole batch
  int64_t gradient_checkpointing = 0;  // 1: keep less, compute twice
  int64_t threads = 0;                 // of each process; 0: the host's cores shared out
  int64_t nproc = 1;                   // processes of the data-parallel group
  int64_t zero = 1;                    // stage of ZeRO: 1 cuts the optimizer's state among the processes, 0 does not
  std::string on_malformed = "stop";   // a line that can't be read: "stop" or "skip" (and count)
  std::string compat = "canonical";    // "canonical", "ref2603", "ref2512", "fork2601" (docs/jobs.md)
  static constexpr std::tuple kFields{Field{"save_dir", &JobConfig::save_dir},
                                      Field{"save_weight", &JobConfig::save_weight},
                                      Field{"epochs", &JobConfig::epochs},
                                      Field{"batch_size", &JobConfig::batch_size},
                                      Field{"learning_rate", &JobConfig::learning_rate},
                                      Field{"device", &JobConfig::device},
                                      Field{"dtype", &JobConfig::dtype},
                                      Field{"num_workers", &JobConfig::num_workers},
                                      Field{"accumulation_steps", &JobConfig::accumulation_steps},
                                      Field{"grad_clip", &JobConfig::grad_clip},
                                      Field{"log_interval", &JobConfig::log_interval},
                                      Field{"save_interval", &JobConfig::save_interval},
                                      Field{"hidden_size", &JobConfig::hidden_size},
                                      Field{"num_hidden_layers", &JobConfig::num_hidden_layers},
                                      Field{"max_seq_len", &JobConfig::max_seq_len},
                                      Field{"use_moe", &JobConfig::use_moe},
                                      Field{"data_path", &JobConfig::data_path},
                                      Field{"from_weight", &JobConfig::from_weight},
                                      Field{"from_resume", &JobConfig::from_resume},
                                      Field{"use_wandb", &JobConfig::use_wandb},
                                      Field{"wandb_project", &JobConfig::wandb_project},
                                      Field{"tokenizer", &JobConfig::tokenizer},
                                      Field{"checkpoint_dir", &JobConfig::checkpoint_dir},
                                      Field{"run_folder", &JobConfig::run_folder},
                                      Field{"eval_path", &JobConfig::eval_path},
                                      Field{"pack", &JobConfig::pack},
                                      Field{"seed", &JobConfig::seed},
                                      Field{"max_steps", &JobConfig::max_steps},
                                      Field{"micro_batch_tokens", &JobConfig::micro_batch_tokens},
                                      Field{"gradient_checkpointing", &JobConfig::gradient_checkpointing},
                                      Field{"threads", &JobConfig::threads},
                                      Field{"nproc", &JobConfig::nproc},
                                      Field{"zero", &JobConfig::zero},
                                      Field{"on_malformed", &JobConfig::on_malformed},
                                      Field{"compat", &JobConfig::compat}};
};
TROUPE_FIELDS_COMPLETE(JobConfig);

// ---- the jobs: each its own settings beside the common ones, and the common ones' defaults --------------------------

struct PretrainJob {
  static constexpr std::string_view kName = "pretrain", kSummary = "teach a model text from scratch: {\"text\"} lines";
  static constexpr std::tuple kFields{};
  static JobConfig defaults() {
    return {.save_weight = "pretrain",
            .accumulation_steps = 8,
            .data_path = "dataset/pretrain_hq.jsonl",
            .wandb_project = "MiniMind-Pretrain"};
  }
};

struct SftJob {
  static constexpr std::string_view kName = "sft", kSummary = "teach a model to answer: {\"conversations\"} lines";
  static constexpr std::tuple kFields{};
  static JobConfig defaults() {
    return {.save_weight = "full_sft",
            .epochs = 2,
            .batch_size = 16,
            .learning_rate = 5e-7,
            .data_path = "dataset/sft_mini_512.jsonl",
            .from_weight = "pretrain",
            .wandb_project = "MiniMind-Full-SFT"};
  }
};

struct LoraJob {
  static constexpr std::string_view kName = "lora", kSummary = "fine-tune low-rank adapters: {\"conversations\"} lines";
  std::string lora_name = "lora_identity";  // in place of save_weight
  int64_t lora_rank = 8;
  double lora_alpha = 0.0;   // y = W x + alpha / rank B A x; 0: alpha = rank, MiniMind's
  std::string lora_targets;  // comma-separated: q_proj,v_proj ...; "": the square layers, q_proj and o_proj
  static constexpr std::tuple kFields{Field{"lora_name", &LoraJob::lora_name}, Field{"lora_rank", &LoraJob::lora_rank},
                                      Field{"lora_alpha", &LoraJob::lora_alpha},
                                      Field{"lora_targets", &LoraJob::lora_targets}};
  static JobConfig defaults() {
    return {.save_dir = "out/lora",
            .epochs = 50,
            .learning_rate = 1e-4,
            .log_interval = 10,
            .save_interval = 1,
            .data_path = "dataset/lora_identity.jsonl",
            .from_weight = "full_sft",
            .wandb_project = "MiniMind-LoRA"};
  }
};

struct DpoJob {
  static constexpr std::string_view kName = "dpo",
                                    kSummary = "prefer one answer to another: {\"chosen\", \"rejected\"} lines";
  double beta = 0.1;
  std::string dpo_logprob;  // of a sequence's tokens: "sum" or "mean"; "": sum, of MiniMind's versions (compat) mean
  double label_smoothing = 0.0;
  static constexpr std::tuple kFields{Field{"beta", &DpoJob::beta}, Field{"dpo_logprob", &DpoJob::dpo_logprob},
                                      Field{"label_smoothing", &DpoJob::label_smoothing}};
  static JobConfig defaults() {
    return {.save_weight = "dpo",
            .batch_size = 4,
            .learning_rate = 4e-8,
            .max_seq_len = 1024,
            .data_path = "dataset/dpo.jsonl",
            .from_weight = "full_sft",
            .wandb_project = "MiniMind-DPO"};
  }
};

struct RewardJob {
  static constexpr std::string_view kName = "reward",
                                    kSummary = "train a reward model: {\"chosen\", \"rejected\"} lines";
  double least_margin = 0.0;  // scores should differ by at least this much
  static constexpr std::tuple kFields{Field{"least_margin", &RewardJob::least_margin}};
  static JobConfig defaults() {
    return {.save_weight = "reward",
            .batch_size = 4,
            .learning_rate = 1e-5,
            .max_seq_len = 1024,
            .data_path = "dataset/dpo.jsonl",
            .from_weight = "full_sft",
            .wandb_project = "MiniMind-Reward"};
  }
};

struct DistillJob {
  static constexpr std::string_view kName = "distill",
                                    kSummary = "learn from a larger model's distributions: {\"conversations\"} lines";
  int64_t student_hidden_size = 512;
  int64_t student_num_layers = 8;
  int64_t teacher_hidden_size = 768;
  int64_t teacher_num_layers = 16;
  std::string from_student_weight = "full_sft";
  std::string from_teacher_weight = "full_sft";
  double alpha = 0.5;        // weight of the cross-entropy with the labels
  double temperature = 1.5;  // of both distributions
  static constexpr std::tuple kFields{Field{"student_hidden_size", &DistillJob::student_hidden_size},
                                      Field{"student_num_layers", &DistillJob::student_num_layers},
                                      Field{"teacher_hidden_size", &DistillJob::teacher_hidden_size},
                                      Field{"teacher_num_layers", &DistillJob::teacher_num_layers},
                                      Field{"from_student_weight", &DistillJob::from_student_weight},
                                      Field{"from_teacher_weight", &DistillJob::from_teacher_weight},
                                      Field{"alpha", &DistillJob::alpha},
                                      Field{"temperature", &DistillJob::temperature}};
  static JobConfig defaults() {
    return {.save_weight = "full_dist",
            .epochs = 6,
            .learning_rate = 5e-6,
            .num_workers = 4,
            .save_interval = 500,
            .data_path = "dataset/sft_mini_512.jsonl",
            .wandb_project = "MiniMind-Distillation"};
  }
};

struct DistillReasonJob {
  static constexpr std::string_view kName = "distill-reason",
                                    kSummary = "teach thinking before answering: {\"conversations\"} lines with tags";
  double tag_weight = 10.0;  // of the tokens that <think>, </think>, <answer>, </answer> are made of
  static constexpr std::tuple kFields{Field{"tag_weight", &DistillReasonJob::tag_weight}};
  static JobConfig defaults() {
    return {.save_weight = "reason",
            .batch_size = 8,
            .learning_rate = 1e-6,
            .max_seq_len = 1024,
            .data_path = "dataset/r1_mix_1024.jsonl",
            .from_weight = "dpo",
            .wandb_project = "MiniMind-Reasoning"};
  }
};

using JobKind = std::variant<PretrainJob, SftJob, LoraJob, DpoJob, RewardJob, DistillJob, DistillReasonJob>;

struct JobRequest {
  JobConfig config;
  JobKind kind;
};

}  // namespace troupe
