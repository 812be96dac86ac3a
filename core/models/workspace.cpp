#include "core/models/workspace.hpp"

#include <ATen/ATen.h>
#include <sys/mman.h>

#include <algorithm>
#include <utility>

namespace troupe {
namespace {

constexpr int64_t kBlockBytes = int64_t{16} << 20;
constexpr uintptr_t kLargePage = uintptr_t{2} << 20;

}  // namespace

void prefer_large_pages(const at::Tensor& buffer) {
  if (!buffer.is_cpu()) return;
  const auto start = reinterpret_cast<uintptr_t>(buffer.const_data_ptr());
  const uintptr_t begin = (start + kLargePage - 1) / kLargePage * kLargePage;
  const uintptr_t end = (start + buffer.nbytes()) / kLargePage * kLargePage;
  if (begin < end) (void)madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
}

at::Tensor Workspace::take(at::IntArrayRef shape, at::ScalarType type) {
  const int64_t bytes = c10::multiply_integers(shape) * static_cast<int64_t>(c10::elementSize(type));
  const int64_t padded = std::max<int64_t>(64, (bytes + 63) / 64 * 64);
  while (block_ < blocks_.size() && used_ + padded > blocks_[block_].size(0)) ++block_, used_ = 0;
  if (block_ == blocks_.size()) {
    blocks_.push_back(at::empty({std::max(padded, kBlockBytes)}, at::TensorOptions(at::kByte).device(device_)));
    prefer_large_pages(blocks_.back());
  }
  void* start = static_cast<std::byte*>(blocks_[block_].mutable_data_ptr()) + used_;
  used_ += padded;
  return at::from_blob(start, shape, at::TensorOptions(type).device(device_));
}

std::shared_ptr<Workspace> WorkspacePool::lease() {
  std::unique_ptr<Workspace> workspace;
  if (free_->empty()) {
    workspace = std::make_unique<Workspace>(device_);
  } else {
    workspace = std::move(free_->back());
    free_->pop_back();
  }
  return {workspace.release(), [free = std::weak_ptr<Free>(free_)](Workspace* used) {
            std::unique_ptr<Workspace> returned(used);
            returned->reset();
            if (auto list = free.lock()) list->push_back(std::move(returned));
          }};
}

}  // namespace troupe
