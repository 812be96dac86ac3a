#include "core/models/workspace.hpp"

#include <ATen/ATen.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

namespace troupe {
namespace {

constexpr int64_t kBlockBytes = int64_t{16} << 20;
constexpr uintptr_t kPage = 4096, kLargePage = uintptr_t{2} << 20;

// The whole pages of a buffer.
std::span<std::byte> pages_of(const at::Tensor& buffer, uintptr_t page) {
  const auto start = reinterpret_cast<uintptr_t>(buffer.mutable_data_ptr());
  const uintptr_t begin = (start + page - 1) / page * page, end = (start + buffer.nbytes()) / page * page;
  return {reinterpret_cast<std::byte*>(begin), begin < end ? end - begin : 0};
}

}  // namespace

void prefer_large_pages(const at::Tensor& buffer) {
  if (!buffer.is_cpu()) return;
  const auto pages = pages_of(buffer, kLargePage);
  if (!pages.empty()) (void)madvise(pages.data(), pages.size(), MADV_HUGEPAGE);
}

void discard(const at::Tensor& buffer) {
  const auto pages = buffer.is_cpu() ? pages_of(buffer, kPage) : std::span<std::byte>();
  // Pages of the process's own come back as zeros. Locked ones can't be given back.
  if (pages.empty() || madvise(pages.data(), pages.size(), MADV_DONTNEED) != 0) return void(buffer.zero_());
  auto* const start = static_cast<std::byte*>(buffer.mutable_data_ptr());
  std::byte* const end = start + buffer.nbytes();
  std::memset(start, 0, static_cast<std::size_t>(pages.data() - start));
  std::memset(pages.data() + pages.size(), 0, static_cast<std::size_t>(end - (pages.data() + pages.size())));
}

void Workspace::discard() {
  reset();
  for (const at::Tensor& block : blocks_) troupe::discard(block);
}

void WorkspacePool::discard() {
  for (const auto& workspace : *free_) workspace->discard();
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
