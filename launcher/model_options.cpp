#include "launcher/model_options.hpp"

namespace troupe {

void add_model_options(CLI::App* command, ModelChoice& model) {
  CLI::Option_group* group = command->add_option_group("Model",
                                                       "a Hugging Face folder or a GGUF file; where --load-from holds "
                                                       "a tokenizer alone: SAVE_DIR/WEIGHT_HIDDEN[_moe].pth");
  group->add_option("--load-from,--model", model.load_from, "folder or .gguf file")->capture_default_str();
  group->add_option("--save-dir", model.save_dir, "folder of MiniMind's weights")->capture_default_str();
  group
      ->add_option("--weight", model.weight,
                   "pretrain (asked without a chat template), full_sft, dpo, reason (thinks), grpo, ...")
      ->capture_default_str();
  group
      ->add_option("--lora-weight", model.lora_weight,
                   "adapter merged in: NAME for SAVE_DIR/lora/NAME_HIDDEN.pth, .pth file, PEFT folder")
      ->capture_default_str();
  group->add_option("--hidden-size", model.hidden_size, "of MiniMind's weights: 512, 768, 640")
      ->check(CLI::Range(16, 65536))
      ->capture_default_str();
  group->add_option("--num-hidden-layers", model.num_hidden_layers, "of MiniMind's weights: 8, 16")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  group->add_option("--use-moe", model.use_moe, "MiniMind's weights are of experts: 0 or 1")
      ->check(CLI::IsMember({"0", "1"}))
      ->capture_default_str();
  group->add_flag("--inference-rope-scaling", model.inference_rope_scaling,
                  "stretch the rotary positions for long texts (YaRN, factor 16 from 2048)");
}

void add_sampling_options(CLI::App* command, Sampling& sampling) {
  CLI::Option_group* group = command->add_option_group("Sampling");
  group->add_option("--temperature", sampling.temperature, "0: always the likeliest token")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  group->add_option("--top-p", sampling.top_p, "only the likeliest tokens that make up this share; 1: off")
      ->check(CLI::Range(0.000001, 1.0))
      ->capture_default_str();
  group->add_option("--top-k", sampling.top_k, "only the K likeliest tokens; 0: off")
      ->check(CLI::Range(0, 1'000'000'000))
      ->capture_default_str();
  group->add_option("--min-p", sampling.min_p, "no token below this share of the likeliest's; 0: off")
      ->check(CLI::Range(0.0, 0.999999))
      ->capture_default_str();
  group->add_option("--repetition-penalty", sampling.repetition_penalty, "1: off")
      ->check(CLI::Range(0.01, 100.0))
      ->capture_default_str();
  group->add_option("--max-new-tokens", sampling.max_new_tokens, "longest answer, tokens; less where the context ends")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
}

void add_compute_options(CLI::App* command, ComputeChoice& compute) {
  command->add_option("--threads", compute.threads, "0: all cores")->check(CLI::Range(0, 4096));
  command->add_option("--device", compute.device, "auto (a GPU where there is one), cpu, cuda, cuda:N")
      ->capture_default_str();
}

}  // namespace troupe
