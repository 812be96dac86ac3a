#include "core/generate/engine.hpp"

#include "core/generate/scheduler.hpp"

namespace troupe {

Engine::Engine(DecoderConfig config, const StateDict& weights, TextDecoder decode_text, EngineOptions options,
               uint64_t version)
    : scheduler_(std::make_unique<Scheduler>(std::move(config), weights, std::move(decode_text), std::move(options),
                                             version)) {}
Engine::~Engine() = default;

void Engine::submit(GenerateRequest request) {
  scheduler_->submit(std::move(request));
}
bool Engine::step() {
  return scheduler_->step();
}
std::span<const int32_t> Engine::tokens_so_far(uint64_t id, int64_t sample) const {
  return scheduler_->tokens_so_far(id, sample);
}
std::optional<Finished> Engine::take_finished() {
  return scheduler_->take_finished();
}
bool Engine::cancel(uint64_t id) {
  return scheduler_->cancel(id);
}
void Engine::prepare_weights(const StateDict& weights, uint64_t version) {
  scheduler_->prepare_weights(weights, version);
}
bool Engine::swap_prepared() {
  return scheduler_->swap_prepared();
}
void Engine::swap_weights(const StateDict& weights, uint64_t version) {
  scheduler_->swap_weights(weights, version);
}
void Engine::discard_cache() {
  scheduler_->discard_cache();
}
bool Engine::holds(const StateDict& weights) const {
  return scheduler_->holds(weights);
}
std::vector<float> Engine::logprobs(std::span<const int32_t> tokens, std::span<const int32_t> prompt_lengths,
                                    std::span<const int32_t> response_lengths, double temperature) {
  return scheduler_->logprobs(tokens, prompt_lengths, response_lengths, temperature);
}
std::vector<float> Engine::logits(std::span<const int32_t> tokens, int64_t rows) {
  return scheduler_->logits(tokens, rows);
}
EngineStats Engine::stats() const {
  return scheduler_->stats();
}
std::string Engine::kernel_name() const {
  return scheduler_->kernel_name();
}

}  // namespace troupe
