// Small shared steps of the roles that compute with tensors.
#pragma once

#include <ATen/Parallel.h>
#include <malloc.h>

#include <string>

#include "core/train/packed_batch.hpp"
#include "protocol/types.hpp"
#include "roles/setting.hpp"
#include "roles/tensors.hpp"

namespace troupe {

inline at::ScalarType scalar_type(ComputeDType dtype) {
  return dtype == ComputeDType::kBF16 ? at::kBFloat16 : at::kFloat;
}

// Gives the memory that loading a model took and freed back to the system: hundreds of megabytes that other roles of
// this host can use.
inline void release_load_memory() {
  malloc_trim(0);
}

// "cpu", "cuda", "cuda:1". Throws std::invalid_argument for anything else.
inline at::Device device_of(const NodeSection& node) {
  try {
    return at::Device(node.device);
  } catch (const c10::Error&) {
    throw std::invalid_argument("node '" + *node.name + "': device '" + node.device +
                                "', expected \"cpu\", \"cuda\" or \"cuda:N\"");
  }
}

// The sequences of a message: int32 attachments as the training engine takes them.
inline PackedBatch packed_batch(const Attachment& tokens, const Attachment& prompt_lengths,
                                const Attachment& response_lengths) {
  const auto prompts = prompt_lengths.as<int32_t>();
  const auto responses = response_lengths.as<int32_t>();
  (void)tokens.as<int32_t>();  // refuses another dtype
  return {.tokens = as_tensor(tokens).to(at::kLong),
          .prompt_lengths = {prompts.begin(), prompts.end()},
          .response_lengths = {responses.begin(), responses.end()}};
}

}  // namespace troupe
