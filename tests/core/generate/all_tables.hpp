// The kernels that this machine can run, for tests of each.
#pragma once

#include <vector>

#include "core/generate/kernels.hpp"

namespace troupe {

inline std::vector<const kernels::KernelTable*> all_tables() {
  std::vector<const kernels::KernelTable*> all;
  for (bool bf16 : {false, true})
    for (const std::string& name : kernels::available(bf16)) all.push_back(&kernels::choose(name, bf16));
  return all;
}

inline std::string name_of(const kernels::KernelTable& table) {
  return std::string(table.name) + (table.bf16 ? "_bfloat16" : "_float32");
}

}  // namespace troupe
