#include "core/models/decoder.hpp"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/grad_mode.h>

#include "fixtures.hpp"

namespace troupe {
namespace {

class Families : public testing::TestWithParam<const char*> {};

TEST_P(Families, LogitsEqualTransformers) {
  const OracleModel oracle(GetParam());
  const at::Tensor ids = oracle.io.read("input_ids"), expected = oracle.io.read("logits");
  const Decoder decoder = oracle.decoder();
  const at::Tensor logits = decoder.logits(decoder.hidden(pack_rows(ids)));
  EXPECT_LT(relative_error(logits.view(expected.sizes()), expected), 1e-5);
}

INSTANTIATE_TEST_SUITE_P(Decoder, Families,
                         testing::Values("llama", "qwen2", "qwen3", "llama_bias", "rope_linear", "rope_dynamic",
                                         "rope_llama3", "rope_yarn"),
                         [](const auto& info) { return std::string(info.param); });

class Gradients : public testing::TestWithParam<const char*> {};

// Mean cross-entropy over the counted next-token predictions.
double train_on(Decoder& decoder, const at::Tensor& ids, const at::Tensor& labels) {
  const auto loss = [&](const at::Tensor& hidden, const at::Tensor& head) {
    const at::Tensor logits = at::mm(hidden.to(at::kFloat), head.t()).view({ids.size(0), ids.size(1), -1});
    const at::Tensor flat = logits.slice(1, 0, ids.size(1) - 1).reshape({-1, logits.size(2)});
    return at::cross_entropy_loss(flat, labels.slice(1, 1).reshape({-1}));
  };
  return train_once(decoder, pack_rows(ids), loss).first;
}

TEST_P(Gradients, EqualTransformers) {
  const OracleModel oracle(GetParam());
  for (bool checkpointing : {false, true}) {
    Decoder decoder = oracle.decoder({.training = Training::kFull, .gradient_checkpointing = checkpointing});
    const double loss = train_on(decoder, oracle.io.read("input_ids"), oracle.io.read("labels"));
    EXPECT_NEAR(loss, oracle.io.read("loss").item<double>(), 1e-5 * loss);
    const ParameterArena& arena = *decoder.trainable();
    for (const auto& [name, gradient] : arena.views(arena.grad()))
      EXPECT_LT(relative_error(gradient, oracle.io.read("grad." + name)), 2e-5) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Decoder, Gradients, testing::Values("llama", "qwen2", "qwen3"),
                         [](const auto& info) { return std::string(info.param); });

TEST(Decoder, ScoresEqualTransformers) {
  const OracleModel oracle("llama_score");
  const at::Tensor expected = oracle.io.read("scores");
  const Decoder decoder = oracle.decoder();
  const at::Tensor scores = decoder.scalars(decoder.hidden(pack_rows(oracle.io.read("input_ids"))));
  EXPECT_LT(relative_error(scores.view(expected.sizes()), expected), 1e-5);
}

// Gradient of sum(hidden * direction) over all parameters, [P].
at::Tensor gradient_of(Decoder& decoder, const PackedTokens& packed, const at::Tensor& direction,
                       const at::Tensor& rows = {}) {
  decoder.trainable()->zero_grad();
  const at::Tensor hidden = decoder.hidden(packed, rows);
  torch::autograd::backward({hidden}, {direction.to(hidden.scalar_type())});
  return decoder.trainable()->grad().clone();
}

TEST(Decoder, PackedSequencesAreComputedAsIfAlone) {
  const DecoderConfig config = small_config();
  Decoder decoder(config, random_state(config), {.training = Training::kFull});
  const std::vector<int64_t> lengths = {5, 1, 130, 64, 33, 2};
  const at::Tensor ids = random_ids(235, config.vocab_size, 3), direction = at::randn({235, config.hidden_size});
  const at::Tensor packed = decoder.hidden(pack_tokens(ids, lengths)).detach();
  at::Tensor gradient_alone = at::zeros_like(decoder.trainable()->grad());
  int64_t begin = 0;
  for (int64_t length : lengths) {
    const PackedTokens alone = pack_tokens(ids.slice(0, begin, begin + length), {length});
    EXPECT_LT(relative_error(packed.slice(0, begin, begin + length), decoder.hidden(alone).detach()), 1e-5) << length;
    gradient_alone += gradient_of(decoder, alone, direction.slice(0, begin, begin + length));
    begin += length;
  }
  EXPECT_LT(relative_error(gradient_of(decoder, pack_tokens(ids, lengths), direction), gradient_alone), 1e-5);
}

TEST(Decoder, AnotherSequenceDoesNotChangeABit) {
  const DecoderConfig config = small_config();
  for (at::ScalarType compute : {at::kFloat, at::kBFloat16}) {
    const Decoder decoder(config, random_state(config), {.compute = compute});
    at::Tensor ids = random_ids(100, config.vocab_size, 3);
    const at::Tensor before = decoder.hidden(pack_tokens(ids, {40, 60}));
    ids.slice(0, 0, 40) = random_ids(40, config.vocab_size, 4);
    const at::Tensor after = decoder.hidden(pack_tokens(ids, {40, 60}));
    EXPECT_TRUE(at::equal(before.slice(0, 40), after.slice(0, 40)));
    EXPECT_FALSE(at::equal(before.slice(0, 0, 40), after.slice(0, 0, 40)));
  }
}

TEST(Decoder, SelectedRowsAreRowsOfTheWhole) {
  const DecoderConfig config = small_config();
  Decoder decoder(config, random_state(config), {.training = Training::kFull});
  const PackedTokens packed = pack_tokens(random_ids(50, config.vocab_size, 5), {20, 30});
  const at::Tensor rows = at::tensor({3, 19, 20, 49}, at::kLong), direction = at::randn({4, config.hidden_size});
  EXPECT_TRUE(at::equal(decoder.hidden(packed, rows), decoder.hidden(packed).index_select(0, rows)));
  const at::Tensor whole = at::zeros({50, config.hidden_size}).index_copy_(0, rows, direction);
  EXPECT_LT(relative_error(gradient_of(decoder, packed, direction, rows), gradient_of(decoder, packed, whole)), 1e-6);
}

TEST(Decoder, CheckpointingGivesTheSameBits) {
  const DecoderConfig config = small_config();
  const PackedTokens packed = pack_tokens(random_ids(90, config.vocab_size, 5), {20, 70});
  const at::Tensor direction = at::randn({90, config.hidden_size});
  for (at::ScalarType compute : {at::kFloat, at::kBFloat16}) {
    DecoderOptions options{.compute = compute, .training = Training::kFull};
    Decoder plain(config, random_state(config), options);
    options.gradient_checkpointing = true;
    Decoder checkpointing(config, random_state(config), options);
    EXPECT_TRUE(at::equal(gradient_of(plain, packed, direction), gradient_of(checkpointing, packed, direction)));
  }
}

TEST(Decoder, RepeatsItselfToTheBit) {
  const DecoderConfig config = small_config();
  const PackedTokens packed = pack_tokens(random_ids(200, config.vocab_size, 5), {20, 110, 3, 67});
  const at::Tensor direction = at::randn({200, config.hidden_size});
  for (at::ScalarType compute : {at::kFloat, at::kBFloat16}) {
    Decoder decoder(config, random_state(config), {.compute = compute, .training = Training::kFull});
    const at::Tensor hidden = decoder.hidden(packed).detach(), gradient = gradient_of(decoder, packed, direction);
    for (int repeat = 0; repeat < 3; ++repeat) {
      EXPECT_TRUE(at::equal(decoder.hidden(packed).detach(), hidden));
      EXPECT_TRUE(at::equal(gradient_of(decoder, packed, direction), gradient));
    }
    at::NoGradGuard no_grad;
    EXPECT_TRUE(at::equal(decoder.hidden(packed), hidden)) << "the forward pass without gradients differs";
  }
}

TEST(Decoder, Bfloat16StaysCloseToFloat32) {
  const DecoderConfig config = small_config();
  const PackedTokens packed = pack_tokens(random_ids(120, config.vocab_size, 5), {20, 100});
  const at::Tensor direction = at::randn({120, config.hidden_size});
  Decoder wide(config, random_state(config), {.training = Training::kFull});
  Decoder narrow(config, random_state(config), {.compute = at::kBFloat16, .training = Training::kFull});
  const auto distance = [](const at::Tensor& a, const at::Tensor& b) {
    return ((a - b).norm() / b.norm()).item<double>();
  };
  EXPECT_LT(distance(narrow.hidden(packed).detach().to(at::kFloat), wide.hidden(packed).detach()), 0.02);
  EXPECT_LT(distance(gradient_of(narrow, packed, direction), gradient_of(wide, packed, direction)), 0.03);
}

TEST(Decoder, TwoPassesMayWaitForTheirGradients) {
  const DecoderConfig config = small_config();
  Decoder decoder(config, random_state(config), {.training = Training::kFull});
  const PackedTokens a = pack_tokens(random_ids(40, config.vocab_size, 6), {40}),
                     b = pack_tokens(random_ids(30, config.vocab_size, 7), {30});
  const at::Tensor da = at::randn({40, config.hidden_size}), db = at::randn({30, config.hidden_size});
  const at::Tensor one_by_one = gradient_of(decoder, a, da) + gradient_of(decoder, b, db);
  decoder.trainable()->zero_grad();
  const at::Tensor hidden_a = decoder.hidden(a), hidden_b = decoder.hidden(b);
  torch::autograd::backward({hidden_a, hidden_b}, {da, db});
  EXPECT_LT(relative_error(decoder.trainable()->grad(), one_by_one), 1e-6);
}

TEST(Decoder, RefusesWhatDoesNotFit) {
  const DecoderConfig config = small_config();
  const StateDict state = random_state(config);
  const auto message = [&](const StateDict& s, const DecoderConfig& c, const DecoderOptions& o = {}) {
    try {
      Decoder decoder(c, s, o);
    } catch (const std::invalid_argument& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  StateDict missing = state, strange = state, wrong = state;
  missing.erase("model.layers.1.mlp.up_proj.weight");
  strange["model.layers.2.mlp.up_proj.weight"] = at::zeros({80, 64});
  wrong["model.norm.weight"] = at::zeros({63});
  EXPECT_EQ(message(missing, config), "parameter 'model.layers.1.mlp.up_proj.weight' is missing");
  EXPECT_EQ(message(strange, config),
            "parameter 'model.layers.2.mlp.up_proj.weight' does not belong to this model's configuration");
  EXPECT_EQ(message(wrong, config), "parameter 'model.norm.weight' has shape [63], expected [64]");
  DecoderConfig odd = config;
  odd.num_kv_heads = 3;
  EXPECT_EQ(message(state, odd), "num_heads 4 is no multiple of num_kv_heads 3");
  LoraConfig lora;
  lora.target_modules = {"q_prj"};
  EXPECT_NE(message(state, config, {.training = Training::kLora, .lora = lora}).find("'q_prj'"), std::string::npos);
  EXPECT_NE(message(state, config, {.compute = at::kHalf}).find("Half"), std::string::npos);

  const Decoder decoder(config, state, {});
  EXPECT_THROW(decoder.hidden(pack_tokens(at::tensor({1, 61}, at::kLong), {2})), std::invalid_argument);
  EXPECT_THROW(pack_tokens(at::tensor({1, 2}, at::kLong), {1}), std::invalid_argument);
  EXPECT_THROW(pack_tokens(at::tensor({1, 2}, at::kInt), {2}), std::invalid_argument);
  EXPECT_THROW(decoder.scalars(at::zeros({1, 64})), std::invalid_argument);
}

}  // namespace
}  // namespace troupe
