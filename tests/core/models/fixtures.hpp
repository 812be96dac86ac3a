// Tiny models by transformers (tests/oracles/io/make_tiny_models.py) and random ones.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <filesystem>
#include <string>

#include "core/io/model_folder.hpp"
#include "core/io/safetensors.hpp"
#include "core/models/decoder.hpp"

namespace troupe {

inline std::filesystem::path oracle_path(const std::string& relative) {
  return std::filesystem::path(TROUPE_SOURCE_DIR) / "tests" / "oracles" / "data" / relative;
}

// Largest difference over the largest value of `expected`.
inline double relative_error(const at::Tensor& actual, const at::Tensor& expected) {
  EXPECT_EQ(actual.sizes(), expected.sizes());
  const at::Tensor a = actual.detach().to(at::kDouble), e = expected.detach().to(at::kDouble);
  return (a - e).abs().max().item<double>() / std::max(1e-12, e.abs().max().item<double>());
}

// A model of tests/oracles and what it gave.
struct OracleModel {
  LoadedModel model;
  SafetensorsFile io;
  explicit OracleModel(const std::string& name)
      : model(load_model(oracle_path("models/" + name), at::kFloat)),
        io(oracle_path("models/" + name + "/io.safetensors")) {}
  Decoder decoder(const DecoderOptions& options = {}) const { return {model.config, model.weights, options}; }
};

// Adds the gradients of loss(hidden, head) + aux_weight aux; returns loss and aux (0 without experts).
template <class Loss>
std::pair<double, double> train_once(Decoder& decoder, const PackedTokens& packed, const Loss& loss_of,
                                     float aux_weight = 0) {
  const HiddenStates states = decoder.hidden_and_aux(packed);
  const at::Tensor leaf = states.hidden.detach().requires_grad_();
  const at::Tensor head = decoder.head().value.detach().to(at::kFloat).requires_grad_();
  const at::Tensor loss = loss_of(leaf, head);
  const auto gradients = torch::autograd::grad({loss}, {leaf, head});
  if (states.aux.defined())
    torch::autograd::backward({states.hidden, states.aux}, {gradients[0], at::tensor(aux_weight)});
  else
    torch::autograd::backward({states.hidden}, {gradients[0]});
  at::NoGradGuard no_grad;
  at::Tensor head_grad = decoder.head().grad;
  if (head_grad.defined()) head_grad.add_(gradients[1]);
  return {loss.template item<double>(), states.aux.defined() ? states.aux.item<double>() : 0.0};
}

// Sequences of equal length, [B, T] -> packed.
inline PackedTokens pack_rows(const at::Tensor& ids) {
  return pack_tokens(ids.reshape({-1}), std::vector<int64_t>(static_cast<size_t>(ids.size(0)), ids.size(1)));
}

inline DecoderConfig small_config() {
  DecoderConfig c;
  c.vocab_size = 61;
  c.hidden_size = 64;
  c.intermediate_size = 80;
  c.num_layers = 2;
  c.num_heads = 4;
  c.num_kv_heads = 2;
  c.head_dim = 32;
  c.rms_norm_eps = 1e-5;
  c.max_positions = 512;
  c.tie_embeddings = true;
  c.qkv_bias = true;
  c.qk_norm = true;
  return c;
}

// Weights of any configuration, drawn from a seed; norms around 1.
inline StateDict random_state(const DecoderConfig& config, int64_t seed = 0) {
  StateDict state;
  at::manual_seed(static_cast<uint64_t>(seed));
  for (const auto& [name, shape] : parameter_shapes(config)) {
    at::Tensor x = at::randn(shape);
    if (name.find("norm") != std::string::npos)
      x = 1 + 0.2 * x;
    else if (shape.size() == 2 && name.find("embed") == std::string::npos)
      x = x * (1.2 / std::sqrt(static_cast<double>(shape[1])));
    else
      x = x * 0.5;
    state[name] = x;
  }
  return state;
}

inline at::Tensor random_ids(int64_t count, int64_t vocab, uint64_t seed) {
  at::manual_seed(seed);
  return at::randint(0, vocab, {count}, at::kLong);
}

}  // namespace troupe
