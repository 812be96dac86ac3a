// Memory of activations: taken like a stack, given back all at once, kept for the next pass. Fresh pages cost more than
// the arithmetic of many small layers, so a training step touches the same ones again.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace troupe {

// Asks the system for large pages behind a large buffer, where it has them: fewer faults and table walks.
void prefer_large_pages(const at::Tensor& buffer);

// Sets a contiguous buffer to zero by giving its pages back to the system: other processes can use them until the
// buffer is touched again. On other devices than the CPU the memory is kept.
void discard(const at::Tensor& buffer);

// Not thread-safe. Tensors taken are views: they must not be used after reset() or the workspace's end.
class Workspace {
 public:
  explicit Workspace(at::Device device) : device_(device) {}

  // Uninitialised, contiguous, 64-byte-aligned.
  at::Tensor take(at::IntArrayRef shape, at::ScalarType type);
  void reset() { block_ = 0, used_ = 0; }
  // reset(), and the memory discarded.
  void discard();

 private:
  at::Device device_;
  std::vector<at::Tensor> blocks_;  // bytes
  size_t block_ = 0;                // the one in use
  int64_t used_ = 0;                // bytes of it
};

// Workspaces that no pass uses at the moment. A lease gives its own back when its last holder lets go.
class WorkspacePool {
 public:
  explicit WorkspacePool(at::Device device) : device_(device), free_(std::make_shared<Free>()) {}
  std::shared_ptr<Workspace> lease();
  // Discards the memory of those that no pass uses.
  void discard();

 private:
  using Free = std::vector<std::unique_ptr<Workspace>>;
  at::Device device_;
  std::shared_ptr<Free> free_;
};

}  // namespace troupe
