// Where a job's weights come from and what its outputs are called.
#pragma once

#include <filesystem>
#include <string>

#include "core/models/config.hpp"
#include "core/models/state_dict.hpp"
#include "roles/jobs/compat.hpp"
#include "roles/jobs/job_config.hpp"

namespace troupe {

struct StartModel {
  DecoderConfig config;
  StateDict weights;                // float32
  std::filesystem::path tokenizer;  // a folder or GGUF file that load_tokenizer opens
  std::filesystem::path origin;     // a model folder or file with these weights; empty: random ones
};

// `from`: "none" (random weights of the shape asked for, MiniMind's), a Hugging Face folder or GGUF file, or the name
// of earlier outputs, <from>_<hidden>[_moe].pth in job.save_dir or in out/. Throws std::runtime_error naming what was
// looked for, std::invalid_argument for a shape that makes no sense.
StartModel start_model(const JobConfig& job, const std::string& from, int64_t hidden_size, int64_t num_layers,
                       const Compat& compat);

// A Hugging Face folder or a GGUF file, not a name.
bool is_model_path(const std::filesystem::path& path);

// "pretrain_512", "pretrain_640_moe".
std::string output_name(const std::string& weight, const DecoderConfig& config);

}  // namespace troupe
