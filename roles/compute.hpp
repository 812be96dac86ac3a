// Small shared steps of the roles that compute with tensors.
#pragma once

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <malloc.h>

#include <optional>
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

// "cpu", "cuda", "cuda:1", as `who` was told. Throws std::invalid_argument for anything else, and for a CUDA device
// where there is none.
inline at::Device usable_device(const std::string& text, const std::string& who) {
  std::optional<at::Device> device;
  try {
    device.emplace(text);
  } catch (const c10::Error&) {
  }
  if (!device || !(device->is_cpu() || device->is_cuda()))
    throw std::invalid_argument(who + ": device '" + text + "', expected \"cpu\", \"cuda\" or \"cuda:N\"");
  if (device->is_cuda() && !at::hasCUDA())
    throw std::invalid_argument(who + ": device '" + text + "', but this machine or this build has no CUDA");
  return *device;
}

inline at::Device device_of(const NodeSection& node) {
  return usable_device(node.device, "node '" + *node.name + "'");
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
