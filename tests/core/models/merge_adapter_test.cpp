#include "core/models/merge_adapter.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace troupe {
namespace {

const std::string kPath = "model.layers.0.self_attn.q_proj";

struct Example {
  at::Tensor a = at::randn({2, 3}), b = at::randn({4, 2}), w = at::randn({4, 3});
  at::Tensor expected(double scale) const { return w + scale * at::matmul(b, a); }
  StateDict model() const { return {{kPath + ".weight", w.clone()}, {"model.norm.weight", at::ones({3})}}; }
};

std::string refusal(StateDict adapter) {
  StateDict model = Example().model();
  try {
    merge_adapter(model, adapter, 1, "x.pth");
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

TEST(MergeAdapter, EveryFormAddsItsProduct) {
  at::manual_seed(1);
  const Example e;
  const StateDict forms[] = {
      {{kPath + ".lora.A.weight", e.a}, {kPath + ".lora.B.weight", e.b}},
      {{"module." + kPath + ".lora.A.weight", e.a}, {"module." + kPath + ".lora.B.weight", e.b}},
      {{kPath + ".lora_A", e.a.t()}, {kPath + ".lora_B", e.b.t()}},
      {{"base_model.model." + kPath + ".lora_A.weight", e.a}, {"base_model.model." + kPath + ".lora_B.weight", e.b}}};
  for (const StateDict& adapter : forms) {
    StateDict model = e.model();
    merge_adapter(model, adapter, 2, "x.pth");
    EXPECT_TRUE(at::allclose(model.at(kPath + ".weight"), e.expected(2), 1e-6, 1e-6)) << adapter.begin()->first;
    EXPECT_TRUE(at::equal(model.at("model.norm.weight"), at::ones({3})));
  }
}

TEST(MergeAdapter, IsComputedInFloatAndKeepsTheDtype) {
  at::manual_seed(2);
  const Example e;
  StateDict model{{kPath + ".weight", e.w.to(at::kBFloat16)}};
  merge_adapter(model, {{kPath + ".lora.A.weight", e.a}, {kPath + ".lora.B.weight", e.b}}, 1, "x.pth");
  const at::Tensor expected = (e.w.to(at::kBFloat16).to(at::kFloat) + at::matmul(e.b, e.a)).to(at::kBFloat16);
  EXPECT_EQ(model.at(kPath + ".weight").scalar_type(), at::kBFloat16);
  EXPECT_TRUE(at::equal(model.at(kPath + ".weight"), expected));
}

TEST(MergeAdapter, WhatDoesNotFitIsNamed) {
  const Example e;
  EXPECT_EQ(refusal({}), "x.pth: holds no adapter");
  EXPECT_EQ(refusal({{"model.layers.9.q_proj.lora.A.weight", e.a}}),
            "x.pth: \"model.layers.9.q_proj.lora.A.weight\" adapts nothing in this model");
  EXPECT_EQ(refusal({{kPath + ".weight", e.w}}), "x.pth: \"" + kPath + ".weight\" adapts nothing in this model");
  EXPECT_EQ(refusal({{kPath + ".lora.A.weight", e.a}}), "x.pth: \"" + kPath + "\": one of the two matrices is missing");
  EXPECT_NE(
      refusal({{kPath + ".lora.A.weight", e.a}, {kPath + ".lora.B.weight", e.a}}).find("do not fit a weight of [4, 3]"),
      std::string::npos);
}

}  // namespace
}  // namespace troupe
