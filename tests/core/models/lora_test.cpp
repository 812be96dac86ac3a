#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/grad_mode.h>

#include "fixtures.hpp"

namespace troupe {
namespace {

// PEFT on the tiny Llama (tests/oracles/train/make_training.py).
struct PeftOracle {
  LoadedModel base = load_model(oracle_path("models/llama"), at::kFloat);
  SafetensorsFile io{oracle_path("train/lora.safetensors")};
  LoraConfig lora;
  StateDict state = base.weights;

  PeftOracle() {
    lora.rank = 4;
    lora.alpha = 12;
    lora.target_modules = {"q_proj", "v_proj", "o_proj", "up_proj", "down_proj"};
    for (const auto& [name, entry] : io.header().tensors)
      if (name.starts_with("lora.")) state[std::string(name.substr(5))] = io.read(std::string(name));
  }
  Decoder decoder(bool checkpointing = false) const {
    return {base.config, state, {.training = Training::kLora, .lora = lora, .gradient_checkpointing = checkpointing}};
  }
};

TEST(Lora, LogitsAndGradientsEqualPeft) {
  const PeftOracle oracle;
  const at::Tensor ids = oracle.io.read("input_ids"), expected = oracle.io.read("logits");
  for (bool checkpointing : {false, true}) {
    Decoder decoder = oracle.decoder(checkpointing);
    const at::Tensor hidden = decoder.hidden(pack_rows(ids));
    EXPECT_LT(relative_error(decoder.logits(hidden).view(expected.sizes()), expected), 1e-5);
    const at::Tensor leaf = hidden.detach().requires_grad_();
    const at::Tensor logits = at::mm(leaf, decoder.head().value.t()).view(expected.sizes());
    const at::Tensor loss = at::cross_entropy_loss(logits.slice(1, 0, ids.size(1) - 1).reshape({-1, expected.size(2)}),
                                                   oracle.io.read("labels").slice(1, 1).reshape({-1}));
    EXPECT_NEAR(loss.item<double>(), oracle.io.read("loss").item<double>(), 1e-5);
    torch::autograd::backward({hidden}, torch::autograd::grad({loss}, {leaf}));
    for (const auto& [name, gradient] : decoder.trainable()->views(decoder.trainable()->grad()))
      EXPECT_LT(relative_error(gradient, oracle.io.read("grad." + name)), 2e-5) << name;
  }
}

TEST(Lora, MergedModelEqualsPeft) {
  const PeftOracle oracle;
  const StateDict merged = oracle.decoder().merged();
  for (const auto& [name, weight] : merged) {
    const bool changed = oracle.io.contains("merged." + name);
    const at::Tensor expected = changed ? oracle.io.read("merged." + name) : oracle.base.weights.at(name);
    EXPECT_LT(relative_error(weight, expected), 1e-6) << name;
  }
  const Decoder decoder(oracle.base.config, merged, {});
  const at::Tensor expected = oracle.io.read("merged_logits");
  const at::Tensor logits = decoder.logits(decoder.hidden(pack_rows(oracle.io.read("input_ids"))));
  EXPECT_LT(relative_error(logits.view(expected.sizes()), expected), 1e-5);
}

TEST(Lora, WithoutAdapterItIsTheBase) {
  const PeftOracle oracle;
  at::NoGradGuard no_grad;
  const Decoder adapted = oracle.decoder(), base(oracle.base.config, oracle.base.weights, {});
  const PackedTokens packed = pack_rows(oracle.io.read("input_ids"));
  EXPECT_TRUE(at::equal(adapted.hidden(packed, {}, /*adapter=*/false), base.hidden(packed)));
}

TEST(Lora, StartsAsTheBaseAndNamesItsParametersAsPeft) {
  const DecoderConfig config = small_config();
  const StateDict state = random_state(config);
  LoraConfig lora;
  lora.target_modules = {"q_proj", "down_proj"};
  at::NoGradGuard no_grad;
  const Decoder adapted(config, state, {.training = Training::kLora, .lora = lora}), base(config, state, {});
  const PackedTokens packed = pack_tokens(random_ids(30, config.vocab_size, 1), {30});
  EXPECT_TRUE(at::equal(adapted.hidden(packed), base.hidden(packed)));
  const StateDict adapters = adapted.state();
  EXPECT_EQ(adapters.size(), 8u);
  EXPECT_EQ(adapters.at("base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight").sizes(),
            (std::vector<int64_t>{8, 64}));
  EXPECT_EQ(adapters.at("base_model.model.model.layers.0.mlp.down_proj.lora_B.weight").sizes(),
            (std::vector<int64_t>{64, 8}));
}

}  // namespace
}  // namespace troupe
