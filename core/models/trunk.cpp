// The forward and backward pass through all layers.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <stdexcept>
#include <string>
#include <utility>

#include "core/models/layer_ops.hpp"
#include "core/models/network.hpp"

namespace troupe {
using trunk::Layer;
using trunk::LayerActivations;
using trunk::Pass;
using trunk::Temporaries;

Temporaries Decoder::Network::take_temporaries(Workspace& memory, int64_t tokens) const {
  const auto matrix = [&](int64_t rows, int64_t columns) { return memory.take({rows, columns}, options.compute); };
  Temporaries t;
  t.y = matrix(tokens, config.hidden_size);
  t.delta = matrix(tokens, config.hidden_size);
  if (config.moe.experts > 0) {
    const int64_t most = trunk::block_rows(tokens);
    t.experts.ends = matrix(trunk::expert_rows(config.moe, tokens), config.hidden_size);
    t.experts.act = matrix(most, config.intermediate_size);
    t.experts.inputs = matrix(most, config.hidden_size);
  } else {
    t.act = matrix(tokens, config.intermediate_size);
  }
  return t;
}

LayerActivations Decoder::Network::take_activations(Workspace& memory, int64_t tokens) const {
  const auto matrix = [&](int64_t columns) { return memory.take({tokens, columns}, options.compute); };
  const int64_t d = config.head_dim, heads = config.num_heads;
  LayerActivations a;
  a.normalised_attention = matrix(config.hidden_size);
  a.rms_attention = memory.take({tokens}, at::kFloat);
  a.qkv = matrix((heads + 2 * config.num_kv_heads) * d);
  a.attention = matrix(heads * d);
  a.log_sum = memory.take({heads, tokens}, at::kFloat);
  a.normalised_feed_forward = matrix(config.hidden_size);
  a.rms_feed_forward = memory.take({tokens}, at::kFloat);
  a.gate_up = memory.take(
      {config.moe.experts > 0 ? trunk::expert_rows(config.moe, tokens) : tokens, 2 * config.intermediate_size},
      options.compute);
  return a;
}

// Adds `delta` (of the layer before; may be undefined) to the residual, then attention and feed-forward; leaves what
// this layer adds in t.delta.
void Decoder::Network::forward_layer(const Layer& layer, const Pass& pass, const AttentionInput& input,
                                     at::Tensor& residual, at::Tensor delta, LayerActivations& kept, Temporaries& t) {
  add_norm(residual, delta, layer.attention_norm.value, config.rms_norm_eps, kept.normalised_attention,
           kept.rms_attention, t.y);
  layer.qkv.forward(t.y, kept.qkv, pass.adapted);
  attention_forward(input, layer.head_norms, kept.qkv, kept.attention, kept.log_sum);
  layer.o.forward(kept.attention, t.delta, pass.adapted);
  add_norm(residual, t.delta, layer.feed_forward_norm.value, config.rms_norm_eps, kept.normalised_feed_forward,
           kept.rms_feed_forward, t.y);
  feed_forward(layer, pass, kept, t);
}

// t.delta = feed_forward(t.y).
void Decoder::Network::feed_forward(const Layer& layer, const Pass& pass, LayerActivations& kept, Temporaries& t) {
  if (config.moe.experts > 0) {
    const auto* sequences = pass.balance ? &pass.packed.cu_seqlens : nullptr;
    layer.experts.forward(config.moe, t.y, sequences, kept.experts, kept.gate_up, t.experts, t.delta);
    return;
  }
  layer.dense.gate_up.forward(t.y, kept.gate_up, pass.adapted);
  swiglu(kept.gate_up, t.act);
  layer.dense.down.forward(t.act, t.delta, pass.adapted);
}

// From dy, the gradient of what it added: gradients of its weights, and of its input in t.y. Overwrites kept.gate_up.
void Decoder::Network::backward_feed_forward(const Layer& layer, const Pass& pass, LayerActivations& kept,
                                             const at::Tensor& dy, Temporaries& t) {
  norm_output(kept.normalised_feed_forward, layer.feed_forward_norm.value, t.delta);
  if (config.moe.experts > 0) {
    layer.experts.backward(config.moe, t.delta, dy, pass.aux_gradient, kept.experts, kept.gate_up, t.experts, t.y);
    return;
  }
  layer.dense.down.backward_input(dy, t.act, pass.adapted);
  swiglu_backward(kept.gate_up, t.act);
  layer.dense.down.backward_weight(t.act, dy, pass.adapted);
  layer.dense.gate_up.backward_input(kept.gate_up, t.y, pass.adapted);
  layer.dense.gate_up.backward_weight(t.delta, kept.gate_up, pass.adapted);
}

// dresidual: gradient of the residual stream after the layer, then before it; dy is the same in the compute dtype.
void Decoder::Network::backward_layer(const Layer& layer, const Pass& pass, const AttentionInput& input,
                                      LayerActivations& kept, at::Tensor& dresidual, at::Tensor& dy, Temporaries& t) {
  backward_feed_forward(layer, pass, kept, dy, t);
  norm_backward(t.y, kept.normalised_feed_forward, kept.rms_feed_forward, layer.feed_forward_norm.value, dresidual, dy,
                layer.feed_forward_norm.grad);
  layer.o.backward_input(dy, t.heads, pass.adapted);
  layer.o.backward_weight(kept.attention, dy, pass.adapted);
  attention_backward(input, layer.head_norms, kept.qkv, kept.attention, kept.log_sum, t.heads, t.dqkv);
  layer.qkv.backward_input(t.dqkv, t.y, pass.adapted);
  norm_output(kept.normalised_attention, layer.attention_norm.value, t.delta);
  layer.qkv.backward_weight(t.delta, t.dqkv, pass.adapted);
  norm_backward(t.y, kept.normalised_attention, kept.rms_attention, layer.attention_norm.value, dresidual, dy,
                layer.attention_norm.grad);
}

at::Tensor Decoder::Network::forward(Pass& pass) {
  at::NoGradGuard no_grad;
  const int64_t tokens = pass.packed.tokens.size(0);
  const bool checkpoint = pass.keep && options.gradient_checkpointing;
  pass.rope = rope_table(config, pass.packed);
  pass.memory = workspaces.lease();
  const AttentionShape shape = attention_shape();
  const AttentionInput input{shape, pass.rope, pass.packed.cu_seqlens, pass.packed.continues};

  pass.residual = pass.memory->take({tokens, config.hidden_size}, at::kFloat);
  at::Tensor residual = pass.residual.copy_(embedding.value.index_select(0, pass.packed.tokens));
  Temporaries& t = pass.temporaries = take_temporaries(*pass.memory, tokens);
  LayerActivations& shared = pass.shared;
  if (!pass.keep || checkpoint) shared = take_activations(*pass.memory, tokens);
  if (!pass.keep) shared.normalised_attention = shared.normalised_feed_forward = shared.log_sum = at::Tensor();
  at::Tensor delta;
  for (const Layer& layer : layers) {
    if (checkpoint) {
      if (delta.defined()) residual.add_(delta), delta.reset();
      pass.layer_inputs.push_back(pass.memory->take(residual.sizes(), at::kFloat).copy_(residual));
    }
    if (pass.keep && !checkpoint) pass.layers.push_back(take_activations(*pass.memory, tokens));
    LayerActivations& kept = pass.layers.empty() ? shared : pass.layers.back();
    forward_layer(layer, pass, input, residual, delta, kept, t);
    delta = t.delta;
    if (pass.balance) {
      const at::Tensor aux = (kept.experts.balance * kept.experts.probabilities).sum();
      pass.aux = pass.aux.defined() ? pass.aux + aux : aux;
    }
  }
  if (pass.rows.defined()) {
    residual.add_(delta);
    delta.reset();
    residual = residual.index_select(0, pass.rows);
  }
  if (pass.keep) {
    pass.normalised = pass.memory->take(residual.sizes(), options.compute);
    pass.rms = pass.memory->take({residual.size(0)}, at::kFloat);
  }
  at::Tensor hidden = at::empty(residual.sizes(), residual.options().dtype(options.compute));
  add_norm(residual, delta, final_norm.value, config.rms_norm_eps, pass.normalised, pass.rms, hidden);
  return hidden;
}

void Decoder::Network::backward(Pass& pass, const at::Tensor& dhidden, const at::Tensor& daux) {
  at::NoGradGuard no_grad;
  if (std::exchange(pass.consumed, true))
    throw std::runtime_error("decoder: a second backward pass through the same hidden states");
  if (daux.defined()) pass.aux_gradient = daux.item<float>();
  const int64_t tokens = pass.packed.tokens.size(0);
  const bool wide = options.compute == at::kFloat;
  const AttentionShape shape = attention_shape();
  const AttentionInput input{shape, pass.rope, pass.packed.cu_seqlens, pass.packed.continues};
  Workspace& memory = *pass.memory;

  at::Tensor dresidual = memory.take({tokens, config.hidden_size}, at::kFloat).zero_();
  at::Tensor dy = wide ? dresidual : memory.take({tokens, config.hidden_size}, options.compute);
  at::Tensor selected =
      pass.rows.defined() ? at::zeros(dhidden.sizes(), dhidden.options().dtype(at::kFloat)) : dresidual;
  at::Tensor copy = !pass.rows.defined() ? dy : wide ? selected : at::empty_like(dhidden);
  norm_backward(dhidden.contiguous(), pass.normalised, pass.rms, final_norm.value, selected, copy, final_norm.grad);
  if (pass.rows.defined()) {
    dresidual.index_copy_(0, pass.rows, selected);
    if (!wide) dy.copy_(dresidual);
  }

  Temporaries& t = pass.temporaries;
  t.heads = memory.take({tokens, config.num_heads * config.head_dim}, options.compute);
  t.dqkv = memory.take({tokens, (config.num_heads + 2 * config.num_kv_heads) * config.head_dim}, options.compute);
  const bool checkpointed = !pass.layer_inputs.empty();
  for (size_t i = layers.size(); i-- > 0;) {
    if (checkpointed)
      forward_layer(layers[i], pass, input, pass.residual.copy_(pass.layer_inputs[i]), {}, pass.shared, t);
    backward_layer(layers[i], pass, input, checkpointed ? pass.shared : pass.layers[i], dresidual, dy, t);
  }
  if (embedding.grad.defined()) add_rows(embedding.grad, pass.packed.tokens, dresidual);
  pass.memory.reset();
}

}  // namespace troupe
