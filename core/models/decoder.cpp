#include "core/models/decoder.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <stdexcept>
#include <utility>

#include "core/models/network.hpp"

namespace troupe {
using trunk::Pass;

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Ties a pass to the autograd graph without exposing its weights to it: `anchor` is what asks for a gradient.
struct HeldPass : torch::CustomClassHolder {
  std::shared_ptr<Pass> pass;
  std::function<void(Pass&, const at::Tensor& dhidden, const at::Tensor& daux)> backward;
};

struct TrunkFunction : torch::autograd::Function<TrunkFunction> {
  // {hidden, aux}, or hidden alone when there is no aux.
  static variable_list forward(AutogradContext* ctx, const at::Tensor& /*anchor*/, const at::Tensor& hidden,
                               c10::intrusive_ptr<HeldPass> held) {
    ctx->saved_data["pass"] = at::IValue::make_capsule(held);
    variable_list outputs{hidden.view_as(hidden)};
    if (const at::Tensor& aux = held->pass->aux; aux.defined()) outputs.push_back(aux.view_as(aux));
    return outputs;
  }
  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    auto held = c10::static_intrusive_pointer_cast<HeldPass>(ctx->saved_data["pass"].toCapsule());
    held->backward(*held->pass, gradients[0], gradients.size() > 1 ? gradients[1] : at::Tensor());
    return {at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

struct ScalarFunction : torch::autograd::Function<ScalarFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& hidden, const ParameterView& weight) {
    ctx->save_for_backward({hidden});
    ctx->saved_data["weight"] = weight.value;
    if (weight.grad.defined()) ctx->saved_data["grad"] = weight.grad;
    return at::mv(hidden.to(at::kFloat), weight.value.view({-1}).to(at::kFloat));
  }
  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor g = gradients[0].to(at::kFloat);
    if (ctx->saved_data.count("grad"))
      ctx->saved_data["grad"].toTensor().add_(at::mm(g.unsqueeze(0), saved[0].to(at::kFloat)));
    return {at::outer(g, ctx->saved_data["weight"].toTensor().view({-1}).to(at::kFloat)).to(saved[0].scalar_type()),
            at::Tensor()};
  }
};

void check_packed(const PackedTokens& packed, int64_t vocab_size) {
  const int64_t tokens = packed.tokens.defined() && packed.tokens.dim() == 1 ? packed.tokens.size(0) : 0;
  if (tokens == 0 || packed.tokens.scalar_type() != at::kLong)
    throw std::invalid_argument("decoder: tokens must be int64 [S], S > 0");
  if (!packed.positions.defined() || packed.positions.sizes() != packed.tokens.sizes() ||
      packed.positions.scalar_type() != at::kLong)
    throw std::invalid_argument("decoder: positions must be int64 [" + std::to_string(tokens) + "]");
  const auto& bounds = packed.cu_seqlens;
  bool rising = bounds.size() >= 2 && bounds.front() == 0 && bounds.back() == tokens;
  for (size_t i = 0; rising && i + 1 < bounds.size(); ++i) rising = bounds[i] < bounds[i + 1];
  if (!rising) throw std::invalid_argument("decoder: cu_seqlens must rise from 0 to " + std::to_string(tokens));
  const auto [low, high] = packed.tokens.aminmax();
  if (low.item<int64_t>() < 0 || high.item<int64_t>() >= vocab_size)
    throw std::invalid_argument("decoder: token id " +
                                std::to_string(low.item<int64_t>() < 0 ? low.item<int64_t>() : high.item<int64_t>()) +
                                " outside the vocabulary of " + std::to_string(vocab_size));
}

}  // namespace

Decoder::Decoder(const DecoderConfig& config, const StateDict& state, const DecoderOptions& options)
    : network_(std::make_unique<Network>(config, state, options)) {}
Decoder::~Decoder() = default;
Decoder::Decoder(Decoder&&) noexcept = default;

at::Tensor Decoder::hidden(const PackedTokens& packed, const at::Tensor& rows, bool adapter) const {
  return pass_through(packed, rows, adapter, false).hidden;
}

HiddenStates Decoder::hidden_and_aux(const PackedTokens& packed, const at::Tensor& rows, bool adapter) const {
  return pass_through(packed, rows, adapter, true);
}

HiddenStates Decoder::pass_through(const PackedTokens& packed, const at::Tensor& rows, bool adapter, bool aux) const {
  check_packed(packed, config().vocab_size);
  auto pass = std::make_shared<Pass>();
  pass->packed = packed;
  pass->rows = rows;
  pass->adapted = adapter;
  pass->keep = at::GradMode::is_enabled() && trainable() != nullptr;
  pass->balance = aux && pass->keep && config().moe.experts > 0 && config().moe.aux_coefficient != 0;
  const at::Tensor hidden = network_->forward(*pass);
  if (!pass->keep) return {hidden, {}};
  auto held = c10::make_intrusive<HeldPass>();
  held->pass = std::move(pass);
  held->backward = [network = network_.get()](Pass& p, const at::Tensor& dhidden, const at::Tensor& daux) {
    network->backward(p, dhidden, daux);
  };
  const variable_list outputs = TrunkFunction::apply(at::zeros({1}).requires_grad_(), hidden, held);
  return {outputs[0], outputs.size() > 1 ? outputs[1] : at::Tensor()};
}

at::Tensor Decoder::logits(const at::Tensor& hidden) const {
  at::NoGradGuard no_grad;
  return at::mm(hidden.detach().to(at::kFloat), head().value.to(at::kFloat).t());
}

at::Tensor Decoder::scalars(const at::Tensor& hidden) const {
  if (!has_score()) throw std::invalid_argument("decoder: this model has no score head");
  return ScalarFunction::apply(hidden, network_->score);
}

const ParameterView& Decoder::head() const {
  if (!network_->head.value.defined()) throw std::invalid_argument("decoder: this model has no output projection");
  return network_->head;
}
bool Decoder::has_score() const {
  return network_->score.value.defined();
}

void Decoder::discard_activations() {
  network_->workspaces.discard();
}

const ParameterArena* Decoder::trainable() const {
  switch (options().training) {
    case Training::kFull:
      return &*network_->weights;
    case Training::kLora:
      return &*network_->adapters;
    case Training::kFrozen:
      break;
  }
  return nullptr;
}
ParameterArena* Decoder::trainable() {
  return const_cast<ParameterArena*>(static_cast<const Decoder*>(this)->trainable());
}

StateDict Decoder::state() const {
  const ParameterArena* arena = trainable();
  return arena ? arena->views(arena->master()) : network_->weights->views(network_->weights->compute());
}

StateDict Decoder::merged() const {
  at::NoGradGuard no_grad;
  StateDict merged = network_->weights->views(network_->weights->compute());
  if (options().training != Training::kLora) return merged;
  const LoraConfig& lora = options().lora;
  const StateDict adapters = network_->adapters->views(network_->adapters->master());
  for (auto& [name, weight] : merged) {
    const auto a = adapters.find("base_model.model." + name.substr(0, name.rfind('.')) + ".lora_A.weight");
    if (a == adapters.end()) continue;
    std::string b_name = a->first;
    b_name[b_name.rfind("lora_A") + 5] = 'B';
    const at::Tensor update = at::mm(adapters.at(b_name), a->second).mul_(lora.alpha / static_cast<double>(lora.rank));
    weight = (weight.to(at::kFloat) + update).to(weight.scalar_type());
  }
  if (has_score()) merged["score.weight"] = network_->score.value;
  return merged;
}

const DecoderConfig& Decoder::config() const {
  return network_->config;
}
const DecoderOptions& Decoder::options() const {
  return network_->options;
}

}  // namespace troupe
