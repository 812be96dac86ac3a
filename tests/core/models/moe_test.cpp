// The mixture of experts in training: against MiniMind's golden numbers, an implementation in float64
// (tests/oracles/train/make_minimind.py) and the formulas by autograd.
#include "core/models/moe.hpp"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/grad_mode.h>

#include "core/models/minimind.hpp"
#include "fixtures.hpp"

namespace troupe {
namespace {

// ---- golden numbers of the reference --------------------------------------------------------------------------------

DecoderConfig golden_config(bool moe) {
  DecoderConfig c = minimind_config(16, 2, moe);
  c.vocab_size = 11;
  c.intermediate_size = 24;
  c.num_heads = 4;
  c.head_dim = 4;
  c.max_positions = 64;
  return c;
}

// The p-th tensor, at flattened position k = 1, 2, ...: norms 1 + 0.1 sin(0.37 k + p), others 0.2 sin(0.7 k + p).
StateDict golden_state(const DecoderConfig& c) {
  std::vector<std::string> names;
  for (int64_t i = 0; i < c.num_layers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    for (const char* name : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                             "input_layernorm", "post_attention_layernorm"})
      names.push_back(layer + name + ".weight");
    for (const std::string& prefix : feed_forward_prefixes(c.moe)) {
      if (prefix == "mlp.shared_experts.0.") names.push_back(layer + "mlp.gate.weight");
      // Experts in the order gate, down, up, like the dense layer.
      for (const char* name : {"gate_proj", "down_proj", "up_proj"}) names.push_back(layer + prefix + name + ".weight");
    }
  }
  names.push_back("model.norm.weight");
  names.push_back("model.embed_tokens.weight");
  const auto shapes = parameter_shapes(c);
  EXPECT_EQ(names.size(), shapes.size());
  StateDict state;
  for (size_t p = 0; p < names.size(); ++p) {
    const at::Tensor k = at::arange(1, at::empty(shapes.at(names[p])).numel() + 1, at::kDouble);
    const bool norm = names[p].find("norm") != std::string::npos;
    const double phase = static_cast<double>(p);
    const at::Tensor values = norm ? 1 + 0.1 * (0.37 * k + phase).sin() : 0.2 * (0.7 * k + phase).sin();
    state[names[p]] = values.to(at::kFloat).view(shapes.at(names[p]));
  }
  return state;
}

struct Golden {
  bool moe;
  std::vector<double> logits;
  double loss, aux;
};

class GoldenVectors : public testing::TestWithParam<Golden> {};

TEST_P(GoldenVectors, AreReproduced) {
  const Golden& golden = GetParam();
  const DecoderConfig config = golden_config(golden.moe);
  Decoder decoder(config, golden_state(config), {.training = Training::kFull});
  const at::Tensor ids = at::tensor({1, 5, 3, 7, 2}, at::kLong);
  const HiddenStates states = decoder.hidden_and_aux(pack_tokens(ids, {5}));
  const at::Tensor logits = decoder.logits(states.hidden);
  for (int64_t v = 0; v < config.vocab_size; ++v)
    EXPECT_NEAR(logits[4][v].item<double>(), golden.logits[static_cast<size_t>(v)], 2e-6) << v;
  EXPECT_NEAR(at::cross_entropy_loss(logits.slice(0, 0, 4), ids.slice(0, 1)).item<double>(), golden.loss, 2e-6);
  EXPECT_EQ(states.aux.defined(), golden.moe);
  if (golden.moe) {
    EXPECT_NEAR(states.aux.item<double>(), golden.aux, 1e-7);
  }
}

INSTANTIATE_TEST_SUITE_P(MiniMind, GoldenVectors,
                         testing::Values(Golden{false,
                                                {-0.8665236, -0.2605870, 0.7607228, 0.5694479, -0.5295213, -0.7844387,
                                                 0.2110317, 0.8701196, 0.1422454, -0.8123666, -0.4720741},
                                                2.5041666,
                                                0},
                                         Golden{true,
                                                {-0.4526214, 0.1848333, 0.5276656, 0.0294040, -0.5157273, -0.2387943,
                                                 0.4187744, 0.4088208, -0.2527892, -0.5114557, 0.0451333},
                                                2.4303799,
                                                0.02101382}),
                         [](const auto& info) { return info.param.moe ? "experts" : "dense"; });

// ---- an implementation in float64 -----------------------------------------------------------------------------------

class Experts : public testing::TestWithParam<const char*>, public OracleModel {
 protected:
  Experts() : OracleModel(GetParam()) {}
  PackedTokens ragged() const {
    const at::Tensor lengths = io.read("ragged_lengths");
    const int64_t* n = lengths.const_data_ptr<int64_t>();
    return pack_tokens(io.read("ragged_ids"), {n, n + lengths.numel()});
  }
};

TEST_P(Experts, LogitsEqualTheOracle) {
  const Decoder decoder(model.config, model.weights, {});
  const at::Tensor expected = io.read("logits");
  const at::Tensor logits = decoder.logits(decoder.hidden(pack_rows(io.read("input_ids"))));
  EXPECT_LT(relative_error(logits.view(expected.sizes()), expected), 1e-5);
}

// Mean cross-entropy of every next token in its sequence, differentiable with respect to hidden and head.
at::Tensor next_token_loss(const PackedTokens& packed, const at::Tensor& hidden, const at::Tensor& head) {
  std::vector<int64_t> rows;
  for (size_t b = 0; b + 1 < packed.cu_seqlens.size(); ++b)
    for (int64_t s = packed.cu_seqlens[b]; s + 1 < packed.cu_seqlens[b + 1]; ++s) rows.push_back(s);
  const at::Tensor from = at::tensor(rows, at::kLong);
  return at::cross_entropy_loss(at::mm(hidden.to(at::kFloat).index_select(0, from), head.t()),
                                packed.tokens.index_select(0, from + 1));
}

// Of loss + 3 aux; returns both.
std::pair<double, double> train_once(Decoder& decoder, const PackedTokens& packed) {
  const auto loss = [&](const at::Tensor& hidden, const at::Tensor& head) {
    return next_token_loss(packed, hidden, head);
  };
  return train_once(decoder, packed, loss, 3);
}

TEST_P(Experts, LossAndGradientsEqualTheOracle) {
  for (bool checkpointing : {false, true}) {
    Decoder decoder(model.config, model.weights,
                    {.training = Training::kFull, .gradient_checkpointing = checkpointing});
    const auto [loss, aux] = train_once(decoder, ragged());
    EXPECT_NEAR(loss, io.read("ragged_loss").item<double>(), 1e-5 * loss);
    EXPECT_NEAR(aux, io.read("ragged_aux").item<double>(), 1e-6 * aux);
    const ParameterArena& arena = *decoder.trainable();
    for (const auto& [name, gradient] : arena.views(arena.grad()))
      EXPECT_LT(relative_error(gradient, io.read("grad." + name)), 2e-5) << name;
  }
}

TEST_P(Experts, AuxiliaryLossOfEqualLengthsEqualsTheOracle) {
  const Decoder decoder(model.config, model.weights, {.training = Training::kFull});
  const double aux = decoder.hidden_and_aux(pack_rows(io.read("input_ids"))).aux.item<double>();
  EXPECT_NEAR(aux, io.read("rows_aux").item<double>(), 1e-6 * aux);
}

// An adapter's gradients follow from those of the matrix W + scale B A that it makes.
TEST_P(Experts, AdaptersOnAttentionHaveTheGradientsOfTheirMatrices) {
  LoraConfig lora;
  lora.rank = 4;
  lora.alpha = 6;
  lora.target_modules = {"q_proj", "o_proj"};
  StateDict state = model.weights;
  at::manual_seed(4);
  const std::vector<std::string> modules = {"model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.o_proj",
                                            "model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.o_proj"};
  for (const std::string& module : modules)
    for (const char* which : {"A", "B"})
      state["base_model.model." + module + ".lora_" + which + ".weight"] =
          0.2 * at::randn(which[0] == 'A' ? at::IntArrayRef{4, 32} : at::IntArrayRef{32, 4});
  Decoder adapted(model.config, state, {.training = Training::kLora, .lora = lora});
  Decoder whole(model.config, adapted.merged(), {.training = Training::kFull});
  const auto [loss, aux] = train_once(adapted, ragged());
  const auto [whole_loss, whole_aux] = train_once(whole, ragged());
  EXPECT_NEAR(loss, whole_loss, 1e-5);
  EXPECT_NEAR(aux, whole_aux, 1e-6);
  const StateDict gradients = adapted.trainable()->views(adapted.trainable()->grad()),
                  of_whole = whole.trainable()->views(whole.trainable()->grad());
  EXPECT_EQ(gradients.size(), 8u);
  for (const std::string& module : modules) {
    const std::string name = "base_model.model." + module + ".lora_";
    const at::Tensor g = of_whole.at(module + ".weight") * 1.5;
    EXPECT_LT(relative_error(gradients.at(name + "A.weight"), at::mm(state.at(name + "B.weight").t(), g)), 1e-4);
    EXPECT_LT(relative_error(gradients.at(name + "B.weight"), at::mm(g, state.at(name + "A.weight").t())), 1e-4);
  }
}

INSTANTIATE_TEST_SUITE_P(MiniMind, Experts,
                         testing::Values("minimind_moe", "minimind_moe_global", "minimind_moe_plain"),
                         [](const auto& info) { return std::string(info.param); });

// ---- the layer alone, by autograd on the formulas -------------------------------------------------------------------

struct LayerCase {
  MoeConfig moe;
  at::Tensor router, x, dy;
  std::vector<at::Tensor> gate_up, down;
  std::vector<int32_t> bounds = {0, 70, 71, 200};

  LayerCase() {
    moe.experts = 7;
    moe.per_token = 3;
    moe.shared_experts = 1;
    moe.aux_coefficient = 0.5;
    at::manual_seed(11);
    router = at::randn({7, 64}) * 0.2;
    router[5] -= 3 * router[0];  // an expert with few tokens
    x = at::randn({200, 64});
    dy = at::randn({200, 64});
    for (int i = 0; i < 8; ++i) {
      gate_up.push_back(at::randn({96, 64}) * 0.15);
      down.push_back(at::randn({64, 48}) * 0.15);
    }
  }
};

// Every expert on every token, float64, weight 0 where it was not chosen: y, and the gradients of sum(y dy) + 2 aux
// with respect to x, the router, and each expert's two matrices.
std::pair<at::Tensor, std::vector<at::Tensor>> naive(const LayerCase& c) {
  std::vector<at::Tensor> leaves;
  const auto leaf = [&](const at::Tensor& t) { return leaves.emplace_back(t.to(at::kDouble).requires_grad_()); };
  const at::Tensor x = leaf(c.x), p = at::softmax(at::mm(x, leaf(c.router).t()), 1);
  const auto [best, chosen] = p.topk(c.moe.per_token, 1);
  const at::Tensor picked = at::zeros_like(p).scatter(1, chosen, 1.0), w = p * picked / best.sum(1, true);
  at::Tensor y = at::zeros_like(x);
  for (size_t j = 0; j < c.down.size(); ++j) {
    const auto halves = at::mm(x, leaf(c.gate_up[j]).t()).chunk(2, 1);
    const at::Tensor out = at::mm(at::silu(halves[0]) * halves[1], leaf(c.down[j]).t());
    const auto e = static_cast<int64_t>(j);
    y = y + (e < c.moe.experts ? out * w.select(1, e).unsqueeze(1) : out);
  }
  at::Tensor aux = at::zeros({}, at::kDouble);
  for (size_t b = 0; b + 1 < c.bounds.size(); ++b) {
    const auto own = [&](const at::Tensor& t) { return t.slice(0, c.bounds[b], c.bounds[b + 1]); };
    aux = aux + (own(picked).mean(0) / 3 * 7 * own(p).mean(0)).sum() * 0.5 / 3;
  }
  const at::Tensor total = (y * c.dy).sum() + 2 * aux;
  return {y.detach(), torch::autograd::grad({total}, leaves)};
}

// The same by the grouped layer.
std::pair<at::Tensor, std::vector<at::Tensor>> grouped(const LayerCase& c, at::ScalarType type) {
  at::NoGradGuard no_grad;
  const auto weight = [&](const at::Tensor& w) { return ParameterView{w.to(type), at::zeros_like(w)}; };
  trunk::Experts layer{weight(c.router), {}};
  for (size_t j = 0; j < c.down.size(); ++j)
    layer.blocks.push_back({{weight(c.gate_up[j]), {}, {}}, {weight(c.down[j]), {}, {}}});
  const int64_t rows = trunk::expert_rows(c.moe, 200), most = trunk::block_rows(200);
  trunk::ExpertActivations kept;
  at::Tensor gate_up = at::empty({rows, 96}, type), y = at::empty({200, 64}, type), dx = at::empty({200, 64}, type);
  trunk::ExpertTemporaries t{at::empty({rows, 64}, type), at::empty({most, 48}, type), at::empty({most, 64}, type)};
  const at::Tensor x = c.x.to(type);
  layer.forward(c.moe, x, &c.bounds, kept, gate_up, t, y);
  EXPECT_LE(kept.bounds.back(), rows);
  layer.backward(c.moe, x, c.dy.to(type), 2.0f, kept, gate_up, t, dx);
  std::vector<at::Tensor> gradients = {dx, layer.router.grad};
  for (const auto& block : layer.blocks) {
    gradients.push_back(block.gate_up.weight.grad);
    gradients.push_back(block.down.weight.grad);
  }
  return {y, gradients};
}

TEST(ExpertLayer, GroupedEqualsEveryExpertOnEveryToken) {
  const LayerCase c;
  const auto [y, gradients] = naive(c);
  const auto [own_y, own_gradients] = grouped(c, at::kFloat);
  EXPECT_LT(relative_error(own_y, y), 1e-6);
  ASSERT_EQ(own_gradients.size(), gradients.size());
  for (size_t i = 0; i < gradients.size(); ++i) EXPECT_LT(relative_error(own_gradients[i], gradients[i]), 2e-6) << i;
}

TEST(ExpertLayer, Bfloat16StaysCloseToFloat32) {
  LayerCase c;
  // Inputs that bfloat16 holds, so that both choose the same experts.
  for (at::Tensor* t : {&c.router, &c.x, &c.dy}) *t = t->to(at::kBFloat16).to(at::kFloat);
  const auto [y, gradients] = grouped(c, at::kFloat);
  const auto [narrow_y, narrow_gradients] = grouped(c, at::kBFloat16);
  const auto distance = [](const at::Tensor& a, const at::Tensor& b) {
    return ((a.to(at::kFloat) - b).norm() / b.norm()).item<double>();
  };
  EXPECT_LT(distance(narrow_y, y), 0.01);
  for (size_t i = 0; i < gradients.size(); ++i) EXPECT_LT(distance(narrow_gradients[i], gradients[i]), 0.01) << i;
}

TEST(ExpertGroups, AreStableAndWhole) {
  MoeConfig moe;
  moe.experts = 3;
  ExpertGroups groups;
  groups.assign(moe, std::vector<int32_t>{2, 0, 0, 2, 2, 0});
  EXPECT_EQ(groups.bounds, (std::vector<int64_t>{0, 3, 3, 6, 9}));
  EXPECT_EQ(groups.token, (std::vector<int64_t>{0, 1, 2, 0, 1, 2, 0, 1, 2}));
  EXPECT_EQ(groups.rows, (std::vector<int64_t>{3, 0, 6, 1, 4, 7, 5, 2, 8}));
}

TEST(ExpertGroups, BlocksAreFilledUp) {
  MoeConfig moe;
  moe.experts = 3;
  moe.per_token = 1;
  ExpertGroups groups;
  groups.assign(moe, std::vector<int32_t>{2, 0, 0, 2, 2}, 2);
  EXPECT_EQ(groups.bounds, (std::vector<int64_t>{0, 2, 2, 6, 11}));
  EXPECT_EQ(groups.token, (std::vector<int64_t>{1, 2, 0, 3, 4, -1, 0, 1, 2, 3, 4}));
  EXPECT_EQ(groups.rows, (std::vector<int64_t>{2, 6, 0, 7, 1, 8, 3, 9, 4, 10}));
}

TEST(ExpertGroups, ChoicesAreTheBestAndWeightsAddUpToOne) {
  MoeConfig moe;
  moe.experts = 4;
  const float p[] = {0.1f, 0.4f, 0.4f, 0.1f};
  int32_t chosen[3];
  float weights[3];
  choose_experts(moe, p, chosen, weights);
  EXPECT_EQ(chosen[0], 1);
  EXPECT_EQ(chosen[1], 2);
  EXPECT_EQ(weights[0], 0.5f);
  moe.normalise = false;
  moe.per_token = 3;
  choose_experts(moe, p, chosen, weights);
  EXPECT_EQ(chosen[2], 0);
  EXPECT_EQ(weights[1], 0.4f);
  // Whatever a diverged model gives, the choice is a choice.
  const float nan = std::nanf("");
  choose_experts(moe, std::array{nan, nan, nan, nan}.data(), chosen, weights);
  EXPECT_EQ((std::vector<int32_t>{chosen[0], chosen[1], chosen[2]}), (std::vector<int32_t>{0, 1, 2}));
}

// ---- the decoder ----------------------------------------------------------------------------------------------------

DecoderConfig expert_config() {
  DecoderConfig c = small_config();
  c.moe.experts = 4;
  c.moe.aux_coefficient = 0.1;
  return c;
}

at::Tensor gradient_of(Decoder& decoder, const PackedTokens& packed, const at::Tensor& direction, float daux) {
  decoder.trainable()->zero_grad();
  const HiddenStates states = decoder.hidden_and_aux(packed);
  torch::autograd::backward({states.hidden, states.aux}, {direction.to(states.hidden.scalar_type()), at::tensor(daux)});
  return decoder.trainable()->grad().clone();
}

TEST(ExpertDecoder, CheckpointingAndRepetitionGiveTheSameBits) {
  const DecoderConfig config = expert_config();
  const PackedTokens packed = pack_tokens(random_ids(90, config.vocab_size, 5), {20, 70});
  const at::Tensor direction = at::randn({90, config.hidden_size});
  for (at::ScalarType compute : {at::kFloat, at::kBFloat16}) {
    DecoderOptions options{.compute = compute, .training = Training::kFull};
    Decoder plain(config, random_state(config), options);
    options.gradient_checkpointing = true;
    Decoder checkpointing(config, random_state(config), options);
    const at::Tensor gradient = gradient_of(plain, packed, direction, 2);
    const HiddenStates states = plain.hidden_and_aux(packed);
    EXPECT_TRUE(at::equal(gradient_of(plain, packed, direction, 2), gradient));
    EXPECT_TRUE(at::equal(gradient_of(checkpointing, packed, direction, 2), gradient));
    EXPECT_TRUE(at::equal(checkpointing.hidden_and_aux(packed).aux, states.aux));
    at::NoGradGuard no_grad;
    EXPECT_TRUE(at::equal(plain.hidden(packed), states.hidden)) << "without gradients";
  }
}

TEST(ExpertDecoder, PackedSequencesAreComputedAsIfAlone) {
  const DecoderConfig config = expert_config();
  Decoder decoder(config, random_state(config), {.training = Training::kFull});
  const std::vector<int64_t> lengths = {5, 1, 130, 64};
  const at::Tensor ids = random_ids(200, config.vocab_size, 3), direction = at::randn({200, config.hidden_size});
  const PackedTokens packed = pack_tokens(ids, lengths);
  const HiddenStates together = decoder.hidden_and_aux(packed);
  const at::Tensor gradient = gradient_of(decoder, packed, direction, 4);
  at::Tensor alone = at::zeros_like(gradient);
  double aux = 0;
  int64_t begin = 0;
  for (int64_t length : lengths) {
    const PackedTokens one = pack_tokens(ids.slice(0, begin, begin + length), {length});
    const HiddenStates states = decoder.hidden_and_aux(one);
    EXPECT_LT(relative_error(together.hidden.slice(0, begin, begin + length), states.hidden), 1e-5) << length;
    aux += states.aux.item<double>() / 4;
    alone += gradient_of(decoder, one, direction.slice(0, begin, begin + length), 1);
    begin += length;
  }
  EXPECT_NEAR(together.aux.item<double>(), aux, 1e-6);
  EXPECT_LT(relative_error(gradient, alone), 1e-5);
}

TEST(ExpertDecoder, AnswersThatContinueAPromptAreThoseOfWholeSequences) {
  const DecoderConfig config = expert_config();
  const Decoder decoder(config, random_state(config), {});
  const at::Tensor ids = random_ids(60, config.vocab_size, 3), prompt = ids.slice(0, 0, 20), a = ids.slice(0, 20, 35),
                   b = ids.slice(0, 35, 60);
  const at::Tensor shared = decoder.hidden(pack_tokens(ids, {20, 15, 25}, {-1, 0, 0}));
  const at::Tensor whole = decoder.hidden(pack_tokens(at::cat({prompt, a, prompt, b}), {35, 45}));
  EXPECT_LT(relative_error(shared.slice(0, 20, 35), whole.slice(0, 20, 35)), 1e-5);
  EXPECT_LT(relative_error(shared.slice(0, 35, 60), whole.slice(0, 55, 80)), 1e-5);
}

TEST(ExpertDecoder, TheAuxiliaryLossIsThereWhenItCanTrain) {
  const DecoderConfig config = expert_config();
  const StateDict state = random_state(config);
  const PackedTokens packed = pack_tokens(random_ids(40, config.vocab_size, 5), {40});
  const at::Tensor direction = at::randn({40, config.hidden_size});
  Decoder decoder(config, state, {.training = Training::kFull});
  EXPECT_EQ(decoder.hidden_and_aux(packed).aux.dim(), 0);
  EXPECT_EQ(decoder.hidden_and_aux(packed).aux.scalar_type(), at::kFloat);
  EXPECT_FALSE(Decoder(config, state, {}).hidden_and_aux(packed).aux.defined());
  DecoderConfig none = config;
  none.moe.aux_coefficient = 0;
  EXPECT_FALSE(Decoder(none, state, {.training = Training::kFull}).hidden_and_aux(packed).aux.defined());
  DecoderConfig dense = small_config();
  const Decoder plain(dense, random_state(dense), {.training = Training::kFull});
  EXPECT_FALSE(plain.hidden_and_aux(packed).aux.defined());
  {
    at::NoGradGuard no_grad;
    EXPECT_FALSE(decoder.hidden_and_aux(packed).aux.defined());
  }

  // hidden() alone has an auxiliary gradient of 0, and the auxiliary loss may be all there is.
  decoder.trainable()->zero_grad();
  torch::autograd::backward({decoder.hidden(packed)}, {direction});
  const at::Tensor of_hidden = decoder.trainable()->grad().clone();
  EXPECT_TRUE(at::equal(of_hidden, gradient_of(decoder, packed, direction, 0)));
  const at::Tensor both = gradient_of(decoder, packed, direction, 2);
  decoder.trainable()->zero_grad();
  torch::autograd::backward({decoder.hidden_and_aux(packed).aux * 2}, {at::tensor(1.0f)});
  EXPECT_GT(decoder.trainable()->grad().abs().max().item<double>(), 0);
  EXPECT_LT(relative_error(of_hidden + decoder.trainable()->grad(), both), 1e-5);
}

TEST(ExpertDecoder, Bfloat16StaysCloseToFloat32) {
  const DecoderConfig config = expert_config();
  const PackedTokens packed = pack_tokens(random_ids(120, config.vocab_size, 5), {20, 100});
  Decoder wide(config, random_state(config), {.training = Training::kFull});
  Decoder narrow(config, random_state(config), {.compute = at::kBFloat16, .training = Training::kFull});
  const at::Tensor a = narrow.hidden(packed).detach().to(at::kFloat), b = wide.hidden(packed).detach();
  // Where rounding changes a token's choice of experts, its hidden state jumps; most are close.
  const at::Tensor error = (a - b).norm(2, {1}) / b.norm(2, {1});
  EXPECT_LT(error.median().item<double>(), 0.02);
  EXPECT_LT(error.gt(0.05).sum().item<int64_t>(), 12);
}

TEST(ExpertDecoder, RefusesWhatDoesNotFit) {
  DecoderConfig config = expert_config();
  const auto message = [&](const StateDict& s, const DecoderConfig& c, const DecoderOptions& o = {}) {
    try {
      Decoder decoder(c, s, o);
    } catch (const std::invalid_argument& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  StateDict state = random_state(config);
  LoraConfig lora;
  lora.target_modules = {"q_proj", "gate_proj"};
  EXPECT_EQ(message(state, config, {.training = Training::kLora, .lora = lora}),
            "lora target module 'gate_proj': expected q_proj, k_proj, v_proj or o_proj (experts take no adapters)");
  DecoderConfig wrong = config;
  wrong.moe.per_token = 5;
  EXPECT_EQ(message(state, wrong), "moe: per_token is 5, expected 1 to the number of experts, 4");
  wrong = config;
  wrong.mlp_bias = true;
  EXPECT_EQ(message(state, wrong), "mlp_bias: experts have no biases");
  state.erase("model.layers.1.mlp.experts.3.down_proj.weight");
  EXPECT_EQ(message(state, config), "parameter 'model.layers.1.mlp.experts.3.down_proj.weight' is missing");
}

}  // namespace
}  // namespace troupe
