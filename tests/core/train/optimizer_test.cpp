// AdamW and schedules against torch and transformers (tests/oracles/train/make_training.py).
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/io/safetensors.hpp"
#include "core/train/adamw.hpp"
#include "core/train/schedule.hpp"

namespace troupe {
namespace {

std::filesystem::path fixture(const std::string& name) {
  return std::filesystem::path(TROUPE_SOURCE_DIR) / "tests" / "oracles" / "data" / "train" / name;
}

nlohmann::json read_json(const std::string& name) {
  return nlohmann::json::parse(std::ifstream(fixture(name)));
}

ParameterArena small_arena(at::ScalarType compute = at::kFloat) {
  return {{{{{"w", 5}}, 7, true}, {{{"b", 7}}, 0, false}}, compute, true, at::kCPU};
}

double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

TEST(AdamW, FollowsTorchOverTenSteps) {
  const SafetensorsFile file(fixture("adamw.safetensors"));
  for (const auto& c : read_json("adamw.json")) {
    const std::string name = c.at("name");
    ParameterArena arena = small_arena();
    arena.load({{"w", file.read(name + ".w.0")}, {"b", file.read(name + ".b.0")}});
    AdamW adamw(arena, {.learning_rate = c.at("learning_rate"),
                        .beta1 = c.at("beta1"),
                        .beta2 = c.at("beta2"),
                        .eps = c.at("eps"),
                        .weight_decay = c.at("weight_decay")});
    const ScheduleConfig schedule{c.at("schedule") == "" ? "constant" : c.at("schedule"),
                                  c.at("schedule") == "" ? 0 : 4, 16};
    const double clip = c.at("clip");
    StateDict gradients = arena.views(arena.grad()), weights = arena.views(arena.master());
    for (int64_t step = 0; step < 10; ++step) {
      for (auto& [parameter, gradient] : gradients) gradient.copy_(file.read(name + "." + parameter + ".grad")[step]);
      const double norm = adamw.gradient_norm();
      EXPECT_NEAR(norm, file.read(name + ".norm")[step].item<double>(), 1e-6 * norm);
      adamw.step(schedule_factor(schedule, step), clip > 0 ? std::min(1.0, clip / (norm + 1e-6)) : 1.0);
      for (const auto& [parameter, weight] : weights)
        EXPECT_LT(largest_difference(weight, file.read(name + "." + parameter)[step]), 1e-6)
            << name << " " << parameter << " step " << step;
      EXPECT_EQ(arena.grad().abs().max().item<float>(), 0.0f);
    }
  }
}

TEST(AdamW, WritesTheBfloat16Copy) {
  ParameterArena arena = small_arena(at::kBFloat16);
  at::manual_seed(1);
  arena.load({{"w", at::randn({5, 7})}, {"b", at::randn({7})}});
  AdamW adamw(arena, {.learning_rate = 0.1});
  arena.grad().normal_();
  adamw.step(1.0, 1.0);
  EXPECT_TRUE(at::equal(arena.compute(), arena.master().to(at::kBFloat16)));
}

// Memory for a compute copy, kept in `given`.
MemorySource source(std::vector<at::Tensor>& given) {
  return [&given](std::size_t bytes) {
    given.push_back(at::zeros({static_cast<int64_t>(bytes)}, at::kByte));
    return at::DataPtr(given.back().mutable_data_ptr(), at::kCPU);
  };
}

TEST(AdamW, LeavesAFrozenCopyAsItIs) {
  ParameterArena arena = small_arena(at::kBFloat16);
  at::manual_seed(1);
  arena.load({{"w", at::randn({5, 7})}, {"b", at::randn({7})}});
  const at::Tensor view = arena.weight("w").value;
  auto step = [&, adamw = AdamW(arena, {.learning_rate = 0.1})]() mutable {
    arena.grad().normal_();
    adamw.step(1.0, 1.0);
    EXPECT_TRUE(at::equal(view, arena.views(arena.master()).at("w").to(at::kBFloat16)));
  };
  std::vector<at::Tensor> given;
  arena.place_compute(source(given));
  ASSERT_EQ(given.size(), 1u);
  EXPECT_EQ(view.const_data_ptr(), given[0].const_data_ptr());
  EXPECT_TRUE(at::equal(arena.compute(), arena.master().to(at::kBFloat16)));
  step();
  EXPECT_EQ(given.size(), 1u) << "nobody else reads it";
  arena.freeze_compute();
  const at::Tensor before = given[0].clone();
  step();
  step();
  ASSERT_EQ(given.size(), 2u);
  EXPECT_TRUE(at::equal(given[0], before));
  EXPECT_EQ(view.const_data_ptr(), given[1].const_data_ptr());
  arena.freeze_compute();
  arena.load({{"w", at::ones({5, 7})}, {"b", at::ones({7})}});
  EXPECT_EQ(given.size(), 3u);
  EXPECT_EQ(view.min().item<float>(), 1.0f);
}

TEST(AdamW, ChangesNothingWhenThereIsNoMemoryForTheCopy) {
  ParameterArena arena = small_arena(at::kBFloat16);
  at::manual_seed(1);
  arena.load({{"w", at::randn({5, 7})}, {"b", at::randn({7})}});
  AdamW adamw(arena, {.learning_rate = 0.1});
  std::vector<at::Tensor> given;
  arena.place_compute([&, give = source(given)](std::size_t bytes) {
    if (!given.empty()) throw std::runtime_error("no memory");
    return give(bytes);
  });
  arena.freeze_compute();
  arena.grad().normal_();
  const at::Tensor master = arena.master().clone(), grad = arena.grad().clone();
  EXPECT_THROW(adamw.step(1.0, 1.0), std::runtime_error);
  EXPECT_EQ(adamw.steps(), 0);
  EXPECT_TRUE(at::equal(arena.master(), master));
  EXPECT_TRUE(at::equal(arena.grad(), grad));
  EXPECT_TRUE(at::equal(arena.compute(), master.to(at::kBFloat16)));
}

TEST(AdamW, DecaysNormsAndBiasesOnlyWhenAsked) {
  for (bool asked : {false, true}) {
    ParameterArena arena = small_arena();
    arena.load({{"w", at::ones({5, 7})}, {"b", at::ones({7})}});
    AdamW adamw(arena, {.learning_rate = 0.1, .weight_decay = 0.5, .decay_norms_and_biases = asked});
    adamw.step(1.0, 1.0);
    const StateDict weights = arena.views(arena.master());
    EXPECT_FLOAT_EQ(weights.at("w").max().item<float>(), 0.95f);
    EXPECT_FLOAT_EQ(weights.at("b").max().item<float>(), asked ? 0.95f : 1.0f);
  }
}

TEST(AdamW, RefusesSettingsOutOfRangeAndMomentsOfAnotherModel) {
  ParameterArena arena = small_arena();
  EXPECT_THROW(AdamW(arena, {.learning_rate = -1}), std::invalid_argument);
  EXPECT_THROW(AdamW(arena, {.beta2 = 1.0}), std::invalid_argument);
  AdamW adamw(arena, {});
  EXPECT_THROW(adamw.load(at::zeros({3}), at::zeros({3}), 1), std::invalid_argument);
  ParameterArena frozen({{{{"w", 5}}, 7, true}}, at::kFloat, false, at::kCPU);
  EXPECT_THROW(AdamW(frozen, {}), std::invalid_argument);
}

TEST(Schedule, FollowsTransformers) {
  const nlohmann::json factors = read_json("schedules.json");
  for (const auto& [kind, values] : factors.items())
    for (size_t step = 0; step < values.size(); ++step)
      EXPECT_NEAR(schedule_factor({kind, 4, 16}, static_cast<int64_t>(step)), values[step].get<double>(), 1e-12)
          << kind << " step " << step;
}

TEST(Schedule, RefusesWhatItDoesNotKnow) {
  EXPECT_THROW(schedule_factor({"cosin", 0, 10}, 0), std::invalid_argument);
  EXPECT_THROW(schedule_factor({"linear", 0, 0}, 0), std::invalid_argument);
  EXPECT_THROW(schedule_factor({"constant", -1, 0}, 0), std::invalid_argument);
}

}  // namespace
}  // namespace troupe
