// The model that a command's flags choose, loaded: from a Hugging Face folder, a GGUF file, or MiniMind's own files.
#pragma once

#include <filesystem>

#include "core/generate/engine.hpp"
#include "core/io/model_folder.hpp"
#include "core/text/tokenizer.hpp"
#include "roles/model_commands.hpp"

namespace troupe {

struct ChosenModel {
  DecoderConfig config;
  StateDict weights;  // adapter merged
  Tokenizer tokenizer;
  std::filesystem::path origin;  // folder, .gguf or .pth
  bool native = false;           // MiniMind's own form

  int64_t parameters() const;
};

// Throws std::runtime_error naming the file that is missing (and those that are there instead) or what is wrong in it.
ChosenModel choose_model(const ModelChoice& choice, at::ScalarType dtype);

// "bf16" or "f32". Throws std::invalid_argument for anything else.
at::ScalarType compute_dtype(const ComputeChoice& compute);

// An engine for one user: one answer at a time, or scoring.
std::unique_ptr<Engine> make_engine(const ChosenModel& model, const ComputeChoice& compute,
                                    TextDecoder decode_text = {});
// Tokens that one sequence may have in it: the model's positions, as far as the engine has room.
int64_t context_length(const DecoderConfig& config);

}  // namespace troupe
