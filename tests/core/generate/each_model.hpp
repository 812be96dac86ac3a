// Tests of the engine with all kernels that this machine can run, each with a dense model and one of experts.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <tuple>

#include "core/generate/engine.hpp"
#include "tests/core/generate/all_tables.hpp"
#include "tests/core/generate/random_model.hpp"

namespace troupe {

class EachTableAndModel : public testing::TestWithParam<std::tuple<const kernels::KernelTable*, bool>> {
 protected:
  // `options` for the table's precision and kernels.
  EngineOptions with_table(EngineOptions options) const {
    const kernels::KernelTable& table = *std::get<0>(GetParam());
    options.dtype = table.bf16 ? at::kBFloat16 : at::kFloat;
    options.kernels = table.name;
    return options;
  }
  DecoderConfig model() const { return std::get<1>(GetParam()) ? expert_config() : odd_config(); }
};

inline auto each_table_and_model() {
  return testing::Combine(testing::ValuesIn(all_tables()), testing::Bool());
}

inline std::string case_name(const testing::TestParamInfo<EachTableAndModel::ParamType>& info) {
  const auto& [table, experts] = info.param;
  return name_of(*table) + (experts ? "_experts" : "");
}

}  // namespace troupe
