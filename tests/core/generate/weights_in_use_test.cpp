// Whether the weights that the next token is sampled from are the given ones: what an actor proves of a version.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/generate/engine.hpp"
#include "tests/core/generate/random_model.hpp"

namespace troupe {
namespace {

// Own kernels in both dtypes, the tensor library's operations, experts: one value of any tensor in use is noticed.
TEST(WeightsInUse, AreTheGivenOnesOrNot) {
  for (const DecoderConfig& config : {full_config(), odd_config(), expert_config()}) {
    for (const auto dtype : {c10::ScalarType::Float, c10::ScalarType::BFloat16}) {
      for (const bool plain : {false, true}) {
        const EngineOptions options{
            .dtype = dtype, .threads = 2, .max_batch = 8, .max_tokens = 1024, .plain_kernels = plain};
        StateDict weights = random_weights(config, 5);
        for (auto& [name, tensor] : weights) tensor = tensor.to(dtype);
        Engine engine(config, random_weights(config, 6), {}, options);
        EXPECT_FALSE(engine.holds(weights));
        engine.prepare_weights(weights, 1);
        EXPECT_FALSE(engine.holds(weights)) << "prepared, not in use";
        engine.swap_prepared();
        EXPECT_TRUE(engine.holds(weights));
        for (auto& [name, tensor] : weights) {
          const at::Tensor kept = tensor;
          tensor = kept.clone();
          tensor.view(-1)[tensor.numel() / 2].add_(1);
          EXPECT_FALSE(engine.holds(weights)) << name;
          tensor = kept;
        }
        EXPECT_TRUE(engine.holds(weights));
      }
    }
  }
}

}  // namespace
}  // namespace troupe
