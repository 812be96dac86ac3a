#include <iostream>

#include "core/io/checkpoint.hpp"
#include "core/models/decoder.hpp"
#include "roles/learner.hpp"
#include "roles/model_source.hpp"
#include "roles/run_role.hpp"

namespace troupe {
namespace {

LoadedCheckpoint checkpoint_of(const std::filesystem::path& run_folder, std::optional<uint64_t> step) {
  const std::filesystem::path folder = run_folder / "checkpoints";
  if (!step) {
    auto newest = load_newest_checkpoint(real_disk(), folder);
    if (!newest) throw std::runtime_error(folder.string() + ": holds no checkpoint yet");
    for (const std::string& damage : newest->rejected) std::cerr << "troupe: damaged, passed over: " << damage << '\n';
    return std::move(*newest);
  }
  std::string known;
  for (const auto& made : list_checkpoints(real_disk(), folder)) {
    if (std::stoull(made.filename().string().substr(5)) == *step) return load_checkpoint(real_disk(), made);
    known += (known.empty() ? "" : ", ") + made.filename().string();
  }
  throw std::runtime_error(folder.string() + ": no checkpoint of step " + std::to_string(*step) + "; there are " +
                           (known.empty() ? "none" : known));
}

}  // namespace

int export_command(const std::filesystem::path& run_folder, std::optional<uint64_t> step,
                   const std::filesystem::path& to) {
  require_replaceable(to);
  const Topology topology = read_run_topology(run_folder);
  const NodeSection& node = node_of(topology, instances_of_role(topology, "learner").at(0));
  const auto config =
      from_json<Learner::Config>(node.config, JsonPath((run_folder / "topology.json").string(), "learner.config"));
  const std::string& model = config.model.empty() ? *topology.model : config.model;
  const LoadedCheckpoint checkpoint = checkpoint_of(run_folder, step);
  StateDict weights;
  for (const auto& [name, tensor] : checkpoint.parts.at("learner"))
    if (!name.starts_with("optimizer.")) weights[name] = tensor;
  DecoderConfig model_config = load_config(model);
  if (config.lora.rank > 0) {
    StateDict base = load_model(model, at::kFloat).weights;
    base.merge(weights);
    weights = Decoder(model_config, base,
                      {.training = Training::kLora,
                       .lora = {.rank = config.lora.rank,
                                .alpha = config.lora.alpha,
                                .target_modules = config.lora.target_modules}})
                  .merged();
  }
  save_model(real_disk(), to, model_config, weights, at::kFloat, tokenizer_writer(model));
  std::cout << "step " << checkpoint.meta.step << " of " << run_folder.filename().string() << " -> " << to.string()
            << '\n';
  return 0;
}

}  // namespace troupe
