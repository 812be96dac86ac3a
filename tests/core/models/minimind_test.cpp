#include "core/models/minimind.hpp"

#include "core/models/initial_weights.hpp"
#include "core/models/rope.hpp"
#include "fixtures.hpp"

namespace troupe {
namespace {

TEST(MiniMind, ParameterCountsAreThePublishedOnes) {
  const auto counts = [](int64_t hidden, int64_t layers, bool moe) {
    const DecoderConfig c = minimind_config(hidden, layers, moe);
    return std::array{parameter_count(c), active_parameter_count(c), static_cast<int64_t>(parameter_shapes(c).size())};
  };
  // Tensors without the second copy of the tied matrix.
  EXPECT_EQ(counts(512, 8, false), (std::array<int64_t, 3>{25'829'888, 25'829'888, 74}));
  EXPECT_EQ(counts(768, 16, false), (std::array<int64_t, 3>{104'030'976, 104'030'976, 146}));
  EXPECT_EQ(counts(640, 8, true), (std::array<int64_t, 3>{145'029'760, 91'945'600, 178}));
  EXPECT_EQ(minimind_config(512, 8, false).intermediate_size, 1408);
  EXPECT_EQ(minimind_config(640, 8, false).intermediate_size, 1728);
  EXPECT_EQ(minimind_config(768, 8, false).intermediate_size, 2048);
}

TEST(MiniMind, RefusesShapesItCannotHave) {
  EXPECT_THROW(minimind_config(0, 8, false), std::invalid_argument);
  EXPECT_THROW(minimind_config(-16, 8, false), std::invalid_argument);
  EXPECT_THROW(minimind_config(520, 8, false), std::invalid_argument);
  EXPECT_THROW(minimind_config(512, 0, false), std::invalid_argument);
}

// Frequencies of the reference, computed in float32 there.
TEST(MiniMind, LongContextFrequenciesAreTheReferences) {
  const RopeFrequencies plain = rope_frequencies(minimind_config(512, 8, false), 0),
                        yarn = rope_frequencies(minimind_config(512, 8, false, true), 0);
  EXPECT_EQ(yarn.attention_scale, 1.0);
  const std::pair<int64_t, double> expected[] = {
      {5, 0.1154781985}, {9, 0.0119788960}, {14, 1.4821086e-4}, {31, 9.6245408e-8}};
  for (const auto& [i, f] : expected) EXPECT_NEAR(yarn.inverse[i].item<double>(), f, 1e-6 * f) << i;
  const std::pair<int64_t, double> ratios[] = {{5, 1.0}, {9, 0.5833333}, {14, 0.0625}, {31, 0.0625}};
  for (const auto& [i, r] : ratios) EXPECT_NEAR((yarn.inverse[i] / plain.inverse[i]).item<double>(), r, 1e-6) << i;
}

TEST(InitialWeights, HaveTheDistributionsOfTorchsLinear) {
  DecoderConfig config = minimind_config(512, 2, true);
  config.qkv_bias = config.qk_norm = true;
  config.tie_embeddings = false;
  const StateDict weights = initial_weights(config, 3);
  ASSERT_EQ(weights.size(), parameter_shapes(config).size());
  for (const auto& [name, shape] : parameter_shapes(config)) {
    const at::Tensor& w = weights.at(name);
    EXPECT_EQ(w.sizes(), shape) << name;
    EXPECT_EQ(w.scalar_type(), at::kFloat);
    if (name.find("norm") != std::string::npos) {
      EXPECT_TRUE(at::equal(w, at::ones(shape))) << name;
      continue;
    }
    const double fan_in = name.ends_with(".bias") ? 512.0 : static_cast<double>(shape[1]);
    const double bound = 1 / std::sqrt(fan_in), n = static_cast<double>(w.numel());
    EXPECT_LE(w.abs().max().item<double>(), bound * (1 + 1e-6)) << name;
    EXPECT_GT(w.abs().max().item<double>(), bound * 0.95) << name;
    // Uniform: mean 0, variance bound^2 / 3, fourth moment bound^4 / 5; five standard errors.
    EXPECT_NEAR(w.mean().item<double>(), 0, 5 * bound / std::sqrt(3 * n)) << name;
    EXPECT_NEAR(w.square().mean().item<double>(), bound * bound / 3, 5 * bound * bound * std::sqrt(4 / 45.0 / n))
        << name;
  }
}

TEST(InitialWeights, FollowTheSeedAlone) {
  const DecoderConfig config = minimind_config(64, 2, true);
  const StateDict a = initial_weights(config, 7), b = initial_weights(config, 7), c = initial_weights(config, 8);
  for (const auto& [name, w] : a) {
    EXPECT_TRUE(at::equal(w, b.at(name))) << name;
    if (w.dim() > 1) {
      EXPECT_FALSE(at::equal(w, c.at(name))) << name;
    }
  }
  EXPECT_FALSE(at::equal(a.at("model.layers.0.mlp.experts.0.gate_proj.weight"),
                         a.at("model.layers.0.mlp.experts.1.gate_proj.weight")));
}

}  // namespace
}  // namespace troupe
