// LoRA adapters as PEFT writes them: adapter_config.json and adapter_model.safetensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <string>

#include "core/io/disk.hpp"
#include "core/models/lora_config.hpp"
#include "core/models/state_dict.hpp"

namespace troupe {

struct Adapter {
  LoraConfig lora;    // seed is not stored
  std::string base;   // base_model_name_or_path
  StateDict weights;  // "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" [rank, in], lora_B [out, rank]
};

// Throws std::runtime_error naming the file and the key or matrix. Variants of LoRA that are not plain (DoRA, rsLoRA,
// biases, per-layer ranks, modules saved whole) are refused, never ignored.
Adapter load_adapter(const std::filesystem::path& folder, at::ScalarType dtype);

// Written aside and renamed, over a folder that require_replaceable() lets go. write_tokenizer may add files to the
// folder it is given.
void save_adapter(Disk& disk, const std::filesystem::path& folder, const Adapter& adapter, at::ScalarType dtype,
                  const std::function<void(const std::filesystem::path&)>& write_tokenizer = {});

}  // namespace troupe
