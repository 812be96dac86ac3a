// Memory that is given back to the system while nobody needs it.
#include "core/models/workspace.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>

namespace troupe {
namespace {

constexpr uintptr_t kPage = 4096;

// Pages of the buffer that memory lies behind.
int64_t resident_pages(const at::Tensor& buffer) {
  const auto start = reinterpret_cast<uintptr_t>(buffer.const_data_ptr()) / kPage * kPage;
  const uintptr_t end = reinterpret_cast<uintptr_t>(buffer.const_data_ptr()) + buffer.nbytes();
  std::vector<unsigned char> pages((end - start + kPage - 1) / kPage);
  if (mincore(reinterpret_cast<void*>(start), end - start, pages.data()) != 0) return -1;
  return std::ranges::count_if(pages, [](unsigned char page) { return (page & 1) != 0; });
}

TEST(Workspace, ADiscardedBufferIsZeroAndTakesNoMemory) {
  const at::Tensor memory = at::full({8 << 20}, 7, at::kByte);
  const at::Tensor buffer = memory.narrow(0, 100, memory.numel() - 1000);  // not at a page's begin or end
  EXPECT_GT(resident_pages(buffer), 2000);
  discard(buffer);
  EXPECT_LE(resident_pages(buffer), 2);
  EXPECT_EQ(buffer.max().item<int>(), 0);
  EXPECT_EQ(memory.narrow(0, 0, 100).min().item<int>(), 7);
  EXPECT_EQ(memory.narrow(0, memory.numel() - 900, 900).min().item<int>(), 7);
  const at::Tensor small = at::full({10}, 7, at::kByte);  // within a page
  discard(small);
  EXPECT_EQ(small.max().item<int>(), 0);
}

TEST(Workspace, WhatNoPassUsesIsDiscardedAndUsedAgain) {
  WorkspacePool pool(at::kCPU);
  const auto kept = pool.lease();
  const at::Tensor in_use = kept->take({1 << 20}, at::kFloat).fill_(3);
  at::Tensor taken = pool.lease()->take({1 << 20}, at::kFloat).fill_(3);  // its lease ends here
  const void* const place = taken.const_data_ptr();
  pool.discard();
  EXPECT_LE(resident_pages(taken), 2);
  EXPECT_EQ(in_use.min().item<float>(), 3);
  taken = pool.lease()->take({1 << 20}, at::kFloat);
  EXPECT_EQ(taken.const_data_ptr(), place);
  EXPECT_EQ(taken.fill_(4).min().item<float>(), 4);
}

}  // namespace
}  // namespace troupe
