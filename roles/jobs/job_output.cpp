#include "roles/jobs/job_output.hpp"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/normal.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <cstdio>
#include <fstream>

#include "core/config.hpp"
#include "core/io/adapter_folder.hpp"
#include "core/io/checkpoint.hpp"
#include "core/io/model_folder.hpp"
#include "core/io/pth.hpp"
#include "core/models/minimind.hpp"
#include "roles/model_source.hpp"

namespace troupe {
namespace {

constexpr std::string_view kPeftPrefix = "base_model.model.";

}  // namespace

void require_writable(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  const std::filesystem::path probe = folder / ".troupe-writable";
  const bool written = static_cast<bool>(std::ofstream(probe) << "probe" << std::flush);
  std::filesystem::remove(probe, error);
  if (!written) throw std::runtime_error(folder.string() + ": nothing can be written there");
}

StateDict native_adapters(const StateDict& adapters, const LoraConfig& lora, bool fork) {
  const double beyond = lora.alpha / (fork ? kForkLoraAlpha : static_cast<double>(lora.rank));
  StateDict out;
  for (const auto& [name, stored] : adapters) {
    const at::Tensor tensor = name.ends_with(".lora_B.weight") && beyond != 1 ? stored * beyond : stored;
    std::string native = name.substr(kPeftPrefix.size());
    if (fork) {
      out[native.substr(0, native.rfind(".weight"))] = tensor.t().contiguous();
      continue;
    }
    native.replace(native.rfind(".lora_"), 6, ".lora.");
    out[native] = tensor;
  }
  return out;
}

StateDict initial_adapters(const DecoderConfig& config, const LoraConfig& lora, uint64_t seed, bool fork) {
  auto random = at::make_generator<at::CPUGeneratorImpl>(seed);
  StateDict out;
  for (const auto& [name, shape] : parameter_shapes(config)) {
    const std::string module = name.substr(0, name.rfind(".weight"));
    const std::string last = module.substr(module.rfind('.') + 1);
    if (std::ranges::find(lora.target_modules, last) == lora.target_modules.end() || shape.size() != 2) continue;
    const std::string prefix = std::string(kPeftPrefix) + module;
    // In the shape and order of the matrix that the fork stores, so that a seed gives its numbers.
    const double bound = 1 / std::sqrt(static_cast<double>(lora.rank));
    out[prefix + ".lora_A.weight"] =
        fork ? at::empty({shape[1], lora.rank}).uniform_(-bound, bound, random).t().contiguous()
             : at::normal(0.0, 0.02, {lora.rank, shape[1]}, random);
    out[prefix + ".lora_B.weight"] = at::zeros({shape[0], lora.rank});
  }
  return out;
}

JobOutput::JobOutput(const JobConfig& job, const Compat& compat, std::string name, DecoderConfig config,
                     std::filesystem::path tokenizer, std::string adapter_base)
    : job_(job),
      compat_(compat),
      name_(std::move(name)),
      config_(std::move(config)),
      tokenizer_(std::move(tokenizer)),
      adapter_base_(std::move(adapter_base)) {}

std::filesystem::path JobOutput::resume_folder() const {
  return std::filesystem::path(job_.checkpoint_dir) / (name_ + "_resume");
}

void JobOutput::save_weights(TrainEngine& engine) const {
  const std::filesystem::path folder = job_.save_dir;
  std::filesystem::create_directories(folder);
  StateDict weights = engine.weights();
  if (const auto& lora = engine.config().lora) {
    save_pth(real_disk(), folder / (name_ + ".pth"), native_adapters(weights, *lora, compat_.fork_lora));
    save_adapter(real_disk(), folder / name_, {.lora = *lora, .base = adapter_base_, .weights = weights}, at::kFloat,
                 tokenizer_writer(tokenizer_));
    return;
  }
  save_model(real_disk(), folder / name_, config_, weights, at::kHalf, tokenizer_writer(tokenizer_));
  if (config_.tie_embeddings) weights["lm_head.weight"] = weights.at("model.embed_tokens.weight");
  save_pth(real_disk(), folder / (name_ + ".pth"), weights, at::kHalf);
}

void JobOutput::save_checkpoint(const StateDict& state, uint64_t step, const JobPlace& place) const {
  const Json extra{
      {"epoch", place.epoch}, {"step", place.step}, {"world_size", place.world_size}, {"tokens", place.tokens}};
  const CheckpointMeta meta{.run = name_, .step = step, .extra = extra.dump()};
  StateDict kept = state;
  if (compat_.half_checkpoints)
    for (auto& [tensor_name, tensor] : kept)
      if (!tensor_name.starts_with("optimizer.")) tensor = tensor.to(at::kHalf).to(at::kFloat);
  write_checkpoint(real_disk(), resume_folder(), meta, {{"learner", std::move(kept)}}, 2);
}

void JobOutput::set_aside_checkpoints() const {
  const std::filesystem::path folder = resume_folder();
  if (!std::filesystem::exists(folder)) return;
  std::filesystem::path before = folder;
  before += ".before";
  std::filesystem::remove_all(before);
  std::filesystem::rename(folder, before);
}

std::optional<JobPlace> JobOutput::load_checkpoint(TrainEngine& engine) const {
  const auto checkpoint = load_newest_checkpoint(real_disk(), resume_folder(), name_);
  if (!checkpoint) return std::nullopt;
  for (const std::string& damage : checkpoint->rejected)
    std::fprintf(stderr, "damaged checkpoint passed over: %s\n", damage.c_str());
  engine.load_state(checkpoint->parts.at("learner"));
  const Json extra = parse_json(checkpoint->meta.extra, (checkpoint->folder / "manifest.json").string());
  return JobPlace{.epoch = extra.at("epoch"),
                  .step = extra.at("step"),
                  .world_size = extra.at("world_size"),
                  .tokens = extra.at("tokens")};
}

}  // namespace troupe
