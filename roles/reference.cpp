#include "roles/reference.hpp"

#include "core/io/model_folder.hpp"
#include "roles/compute.hpp"

namespace troupe {

Reference::Reference(const RoleSetting& setting, Context& context) : context_(context) {
  const auto config = from_json<Config>(setting.config(), setting.where());
  const std::string& path = setting.model_or(config.model);
  context_.beat("load", path);
  at::set_num_threads(setting.threads);
  const at::Device device = device_of(setting.node());
  std::optional<LoadedModel> model = load_model(path, scalar_type(config.dtype));
  engine_.emplace(model->config, model->weights,
                  TrainConfig{.compute = scalar_type(config.dtype),
                              .frozen = true,
                              .micro_batch_tokens = config.micro_batch_tokens,
                              .yields_memory = true,
                              .device = device});
  model.reset();
  release_load_memory();
}

AnswerLogProbs Reference::handle(const LogProbs& m) {
  const PackedBatch batch = packed_batch(m.tokens, m.prompt_lengths, m.response_lengths);
  context_.beat("logprobs", std::to_string(batch.sequences()) + " sequences");
  const TokenOutputs scored = engine_->logprobs(batch, m.temperature);
  return {.logprobs = as_attachment(scored.logprobs, DType::kF32), .policy_version = 0};
}

}  // namespace troupe
