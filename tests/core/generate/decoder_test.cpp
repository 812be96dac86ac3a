// The model's numbers: against transformers' logits and greedy answers, own kernels against at:: operations.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/generate/engine.hpp"
#include "core/generate/kernels.hpp"
#include "core/io/model_folder.hpp"
#include "core/io/safetensors.hpp"
#include "tests/core/generate/random_model.hpp"

namespace troupe {
namespace {

const std::string kModels = TROUPE_SOURCE_DIR "/tests/oracles/data/models/";

struct Setting {
  std::string kernels;  // "plain" or a table
  at::ScalarType dtype;
};

std::vector<Setting> settings(std::initializer_list<at::ScalarType> dtypes) {
  std::vector<Setting> all;
  for (at::ScalarType dtype : dtypes) {
    all.push_back({"plain", dtype});
    for (const std::string& name : kernels::available(dtype == at::kBFloat16)) all.push_back({name, dtype});
  }
  return all;
}

EngineOptions options_for(const Setting& s, int64_t max_tokens = 2048) {
  EngineOptions o;
  o.dtype = s.dtype;
  o.threads = 2;
  o.max_tokens = max_tokens;
  o.max_batch = 8;
  o.plain_kernels = s.kernels == "plain";
  if (!o.plain_kernels) o.kernels = s.kernels;
  return o;
}

at::Tensor logits_of(Engine& engine, const std::vector<int32_t>& tokens) {
  const std::vector<float> values = engine.logits(tokens, static_cast<int64_t>(tokens.size()));
  return at::tensor(values).view({static_cast<int64_t>(tokens.size()), -1});
}

double largest(const at::Tensor& t) {
  return t.abs().max().item<double>();
}

class EachModel : public testing::TestWithParam<std::string> {};

// float32: 1e-5 of the largest logit, as sums of another order differ. bfloat16: 3 %, its weights' own rounding.
TEST_P(EachModel, LogitsAreThoseOfTransformers) {
  const LoadedModel model = load_model(kModels + GetParam(), at::kFloat);
  const SafetensorsFile io(kModels + GetParam() + "/io.safetensors");
  const at::Tensor ids = io.read("input_ids").to(at::kInt).contiguous(), want = io.read("logits");
  const double scale = largest(want);
  for (const Setting& s : settings({at::kFloat, at::kBFloat16})) {
    Engine engine(model.config, model.weights, {}, options_for(s));
    for (int64_t b = 0; b < ids.size(0); ++b) {
      const int32_t* row = ids[b].const_data_ptr<int32_t>();
      const at::Tensor got = logits_of(engine, {row, row + ids.size(1)});
      EXPECT_LT(largest(got - want[b]) / scale, s.dtype == at::kFloat ? 1e-5 : 0.03) << s.kernels << " " << s.dtype;
    }
  }
}

TEST_P(EachModel, GreedyAnswersAreThoseOfTransformers) {
  const SafetensorsFile io(kModels + GetParam() + "/io.safetensors");
  const LoadedModel model = load_model(kModels + GetParam(), at::kFloat);
  const at::Tensor all = io.read("greedy_ids").to(at::kInt).contiguous();
  const int64_t prompt_length = io.read("greedy_prompt").size(1);
  for (const Setting& s : settings({at::kFloat})) {
    Engine engine(model.config, model.weights, {}, options_for(s));
    const int32_t* ids = all.const_data_ptr<int32_t>();
    GenerateRequest request;
    request.prompt.assign(ids, ids + prompt_length);
    request.sampling.temperature = 0;
    request.sampling.max_new_tokens = all.size(1) - prompt_length;
    request.sampling.ignore_eos = true;
    engine.submit(request);
    while (engine.step()) {
    }
    const auto done = engine.take_finished();
    ASSERT_TRUE(done);
    EXPECT_EQ(done->completions[0].tokens, std::vector<int32_t>(ids + prompt_length, ids + all.size(1))) << s.kernels;
  }
}

INSTANTIATE_TEST_SUITE_P(Transformers, EachModel,
                         testing::Values("llama", "llama_bias", "qwen2", "qwen3", "rope_linear", "rope_dynamic",
                                         "rope_yarn", "rope_llama3"));
// tests/oracles/train/make_minimind.py
INSTANTIATE_TEST_SUITE_P(MiniMind, EachModel,
                         testing::Values("minimind_moe", "minimind_moe_global", "minimind_moe_plain"));

class EachShape : public testing::TestWithParam<DecoderConfig> {};

// Rounding to bfloat16 changes the experts of a token whose best ones are nearly equal; between equal experts it does
// not matter. (float32, and the models above, have different ones.)
void make_experts_alike(StateDict& weights) {
  for (auto& [name, w] : weights) {
    const size_t at = name.find(".experts.");
    if (at != std::string::npos)
      w = weights.at(name.substr(0, at) + ".experts.0" + name.substr(name.find('.', at + 9)));
  }
}

// Random weights of unit gain, sizes that need padding everywhere, a sequence over many pages.
TEST_P(EachShape, OwnKernelsAgreeWithTensorOperations) {
  const DecoderConfig& config = GetParam();
  const std::vector<int32_t> tokens = random_tokens(150, config.vocab_size, 1);
  for (at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    StateDict weights = random_weights(config, 11, dtype);
    if (dtype == at::kBFloat16) make_experts_alike(weights);
    Engine plain(config, weights, {}, options_for({"plain", dtype}));
    const at::Tensor want = logits_of(plain, tokens);
    for (const std::string& name : kernels::available(dtype == at::kBFloat16)) {
      Engine engine(config, weights, {}, options_for({name, dtype}));
      const at::Tensor difference = logits_of(engine, tokens) - want;
      // bfloat16 rounds activations at other places than the library: 2 % of the largest logit, 0.5 % on average.
      EXPECT_LT(largest(difference) / largest(want), dtype == at::kFloat ? 1e-5 : 0.02) << name << " " << dtype;
      EXPECT_LT(difference.abs().mean().item<double>() / largest(want), dtype == at::kFloat ? 1e-6 : 0.005) << name;
    }
  }
}

std::string shape_name(const testing::TestParamInfo<DecoderConfig>& info) {
  const char* names[] = {"tied", "all_biases", "experts"};
  return names[info.index];
}
INSTANTIATE_TEST_SUITE_P(Random, EachShape, testing::Values(odd_config(), full_config(), expert_config()), shape_name);

TEST(Weights, FloatAndBFloat16SourcesPackToTheSame) {
  const DecoderConfig config = odd_config();
  const StateDict narrow = random_weights(config, 3, at::kBFloat16);
  StateDict wide;
  for (const auto& [name, tensor] : narrow) wide[name] = tensor.to(at::kFloat);
  const std::vector<int32_t> tokens = random_tokens(20, config.vocab_size, 2);
  for (at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    Engine from_narrow(config, narrow, {}, options_for({"auto", dtype}));
    Engine from_wide(config, wide, {}, options_for({"auto", dtype}));
    EXPECT_EQ(from_narrow.logits(tokens, 20), from_wide.logits(tokens, 20));
  }
}

TEST(Weights, RefusesMissingAndMisshapenParametersByName) {
  const DecoderConfig config = odd_config();
  const auto message = [&](const StateDict& weights) -> std::string {
    try {
      Engine engine(config, weights, {}, options_for({"auto", at::kFloat}));
    } catch (const std::invalid_argument& e) {
      return e.what();
    }
    return "accepted";
  };
  StateDict weights = random_weights(config, 3);
  weights.erase("model.layers.1.mlp.up_proj.weight");
  EXPECT_EQ(message(weights), "weights: model.layers.1.mlp.up_proj.weight is missing, expected [100, 72]");
  weights = random_weights(config, 3);
  weights["model.norm.weight"] = at::ones(71);
  EXPECT_EQ(message(weights), "weights: model.norm.weight is [71], expected [72]");
}

}  // namespace
}  // namespace troupe
