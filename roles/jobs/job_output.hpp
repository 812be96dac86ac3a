// What a job leaves behind: MiniMind's weight file, a Hugging Face folder, and the checkpoint it goes on from.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "core/models/config.hpp"
#include "core/train/engine.hpp"
#include "roles/jobs/compat.hpp"
#include "roles/jobs/job_config.hpp"

namespace troupe {

struct JobPlace {
  int64_t epoch = 0;  // 0-based
  int64_t step = 0;   // batches of it that are done
  int64_t world_size = 1;
  int64_t tokens = 0;  // scored ones trained on, over all processes
};

class JobOutput {
 public:
  // `name`: what output_name() gives. `tokenizer`: copied into the folders. `adapter_base`: LoRA, where the weights are
  // that it was trained on.
  JobOutput(const JobConfig& job, const Compat& compat, std::string name, DecoderConfig config,
            std::filesystem::path tokenizer, std::string adapter_base = "");

  // <save_dir>/<name>.pth (float16) and <save_dir>/<name>/ (Hugging Face, or the PEFT adapter of a LoRA job).
  void save_weights(TrainEngine& engine) const;
  // <checkpoint_dir>/<name>_resume/step-N/: full precision, optimizer and place; checksummed, written aside. `state` is
  // the engine's after `step` updates.
  void save_checkpoint(const StateDict& state, uint64_t step, const JobPlace& place) const;
  // A job that starts anew keeps the checkpoints of an earlier one as <name>_resume.before/.
  void set_aside_checkpoints() const;
  // Loads the newest checkpoint that verifies into the engine; none when there is none.
  std::optional<JobPlace> load_checkpoint(TrainEngine& engine) const;

  const std::string& name() const { return name_; }

 private:
  std::filesystem::path resume_folder() const;

  JobConfig job_;
  Compat compat_;
  std::string name_;
  DecoderConfig config_;
  std::filesystem::path tokenizer_;
  std::string adapter_base_;
};

// Makes the folder unless it is there. Throws std::runtime_error naming it when nothing can be written into it.
void require_writable(const std::filesystem::path& folder);

// Adapter matrices by PEFT's names as MiniMind stores them: "model.layers.0.self_attn.q_proj.lora.A.weight" [r, in], B
// [out, r]; as its fork does: "model.layers.0.self_attn.q_proj.lora_A" [in, r], B [r, out]. There alpha is always r,
// here kForkLoraAlpha: B is multiplied with what `lora` has beyond it.
StateDict native_adapters(const StateDict& adapters, const LoraConfig& lora, bool fork);
// LoRA matrices as MiniMind starts them, by PEFT's names: A normal(0, 0.02), its fork's uniform(-1/sqrt(r), 1/sqrt(r));
// B zero.
StateDict initial_adapters(const DecoderConfig& config, const LoraConfig& lora, uint64_t seed, bool fork);

}  // namespace troupe
