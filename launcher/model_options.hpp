// Flags that several commands share: which model, how it samples. Their names are those of MiniMind's scripts.
#pragma once

#include <CLI/CLI.hpp>

#include "roles/model_commands.hpp"

namespace troupe {

// --load-from, --save-dir, --weight, --lora-weight, --hidden-size, --num-hidden-layers, --use-moe,
// --inference-rope-scaling.
void add_model_options(CLI::App* command, ModelChoice& model);

// --temperature, --top-p, --top-k, --min-p, --repetition-penalty, --max-new-tokens.
void add_sampling_options(CLI::App* command, Sampling& sampling);

// --threads, --device.
void add_compute_options(CLI::App* command, ComputeChoice& compute);

}  // namespace troupe
