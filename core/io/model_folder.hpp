// Models on disk: Hugging Face folders (read and written) and GGUF files (read). A model comes whole or not at all:
// every parameter that the configuration asks for, of the right shape, and none besides. Errors are std::runtime_error
// naming the file and the key or tensor. Never executes anything from a file, never reads pickles (.bin, .pt).
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <string>

#include "core/io/disk.hpp"
#include "core/models/config.hpp"
#include "core/models/parameter_shapes.hpp"
#include "core/models/state_dict.hpp"

namespace troupe {

// A configuration that claims more is refused before anything is listed or allocated per layer.
inline constexpr int64_t kMaxLayers = 4096, kMaxExperts = 64;

enum class ModelSource { kHuggingFace, kGguf };

struct LoadedModel {
  DecoderConfig config;
  StateDict weights;             // contiguous, on the CPU, in memory of their own
  std::filesystem::path origin;  // the Hugging Face folder or the .gguf file
  ModelSource source = ModelSource::kHuggingFace;
};

// What `path` is: a Hugging Face folder, a .gguf file, or a folder that holds exactly one .gguf and no config.json.
struct ModelPath {
  std::filesystem::path path;  // the folder or the .gguf file
  ModelSource source;
};
ModelPath resolve_model(const std::filesystem::path& path);

// dtype: at::kFloat, at::kBFloat16 or at::kHalf, of all weights.
LoadedModel load_model(const std::filesystem::path& path, at::ScalarType dtype);
DecoderConfig load_config(const std::filesystem::path& path);

// A config.json of llama, qwen2, qwen3 or minimind, transformers 4 and 5 alike; eos from generation_config.json (empty:
// there is none). `origin` is for messages.
DecoderConfig parse_hf_config(const std::string& config_json, const std::string& generation_config_json,
                              const std::string& origin);
// What transformers 5 opens as the same model (MiniMind is written as what it is: llama or qwen3). With experts it is
// written as "minimind" with MiniMind's own fields, which transformers opens with MiniMind's remote code only.
// `classifier`: as ...ForSequenceClassification with one label, whose head is "score.weight".
std::string format_hf_config(const DecoderConfig& config, at::ScalarType dtype, bool classifier);

// Throws std::runtime_error unless save_model and save_adapter may replace `folder`: there is none, or it holds nothing
// but what they write. Both ask it themselves; whoever computes for long before it saves asks it first.
void require_replaceable(const std::filesystem::path& folder);

// Writes a Hugging Face folder, aside and renamed: `folder` is then whole and new, or as it was. write_tokenizer puts
// the tokenizer's files into the folder it is given. A state with "score.weight" becomes a sequence classifier.
void save_model(Disk& disk, const std::filesystem::path& folder, const DecoderConfig& config, const StateDict& weights,
                at::ScalarType dtype, const std::function<void(const std::filesystem::path&)>& write_tokenizer,
                uint64_t max_shard_bytes = 5'000'000'000);

}  // namespace troupe
