// A small byte-level model made on the spot: for tests, and for the demonstration where no real model can be had. It
// learns two-number arithmetic from a careless teacher, whose answer is one too many as often as `wrong_share` says:
// what a sum is generalises to pairs it never saw, and which of its two habits is right it can only learn from rewards.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

namespace troupe {

struct TinyModelOptions {
  std::filesystem::path to;       // a Hugging Face folder is made here
  std::filesystem::path prompts;  // JSON lines {"prompt", "answer"} to teach; may be empty when steps is 0
  int64_t steps = 700;            // of 32 questions each; 0: random weights
  int64_t hidden_size = 128;
  int64_t num_layers = 3;
  double wrong_share = 0.6;
  uint64_t seed = 1;
};

// Throws std::runtime_error naming the file that can't be read or written, or what `to` holds besides a model.
// `on_progress` gets one line now and then.
void make_tiny_model(const TinyModelOptions& options, const std::function<void(const std::string&)>& on_progress);

}  // namespace troupe
