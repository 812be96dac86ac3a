// Low-rank adapters, names and meaning as in PEFT: y = W x + (alpha / rank) B A x, A [rank, in], B [out, rank].
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace troupe {

struct LoraConfig {
  int64_t rank = 8;
  double alpha = 16.0;
  // Any of q_proj k_proj v_proj o_proj gate_proj up_proj down_proj.
  std::vector<std::string> target_modules = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                             "gate_proj", "up_proj", "down_proj"};
  uint64_t seed = 0;  // of A's initial values (Kaiming uniform as in PEFT); B starts at zero
};

}  // namespace troupe
