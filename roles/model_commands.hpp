// What the launcher calls to use a model that is already there: to talk with it, measure it, write it in another form.
// Each returns the process's exit code; what is wrong is thrown as one clear line. No tensors here.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "protocol/types.hpp"

namespace troupe {

// Which model. `load_from` is a Hugging Face folder, a GGUF file, or a folder that holds a tokenizer alone; then the
// weights are MiniMind's own: SAVE_DIR/WEIGHT_HIDDEN[_moe].pth.
struct ModelChoice {
  std::filesystem::path load_from = "model";
  std::filesystem::path save_dir = "out";
  std::string weight = "full_sft";
  std::string lora_weight = "None";  // or SAVE_DIR/lora/NAME_HIDDEN.pth by name, a .pth file, a PEFT folder
  int64_t hidden_size = 512;
  int64_t num_hidden_layers = 8;
  bool use_moe = false;
  bool inference_rope_scaling = false;  // YaRN, 16 times 2048 positions
};

struct ComputeChoice {
  int64_t threads = 0;  // 0: all cores
  std::string dtype;    // "bf16", "f32"
  std::string device = "auto";
};

inline Sampling chat_sampling() {
  Sampling sampling;
  sampling.temperature = 0.85;
  sampling.top_p = 0.85;
  sampling.top_k = 50;
  sampling.max_new_tokens = 8192;
  return sampling;
}

struct ChatOptions {
  ModelChoice model;
  ComputeChoice compute{.dtype = "bf16"};
  Sampling sampling = chat_sampling();
  std::optional<std::string> system;
  std::optional<bool> thinking;  // the template's enable_thinking; by default on for the weights "reason" alone
  int64_t historys = -1;         // messages kept; -1: all
  uint64_t seed = 2026;
  bool show_speed = true;
  bool dim = false;  // stdout shows escape sequences
};
int chat_command(const ChatOptions& options);

enum class EvalMode { kAsk, kAutomatic, kManual, kPerplexity, kChoice };

struct EvalOptions {
  ChatOptions chat;  // model and, for answers, the rest
  EvalMode mode = EvalMode::kAsk;
  std::filesystem::path data;    // perplexity, choice
  std::filesystem::path output;  // "": none; else the figures as JSON
  bool bos = false;              // the model's bos before every text, even if its tokenizer puts none
  // perplexity; 0: the model's context, at most 2048; half of max_length
  int64_t max_length = 0, stride = 0;
  // choice
  std::string split;              // "": by layout
  int64_t shots = 0;              // examples before each question
  std::string score = "letters";  // or "options"
  std::string letters = "auto";   // "bare", "space"
  bool normalise = false;         // log-probability per token
  std::string cue;                // "": by layout
};
int eval_command(const EvalOptions& options);

struct ConvertOptions {
  ModelChoice model;
  std::filesystem::path to;  // NAME.pth: MiniMind's own form; else a Hugging Face folder
  std::string dtype;         // "f16", "bf16", "f32"; "": f16 from and to MiniMind's own form, else bf16
};
int convert_command(const ConvertOptions& options);

}  // namespace troupe
