#include "core/models/wide_product.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/native/CPUBlas.h>

#include "core/models/kernels/rows.hpp"

namespace troupe {
namespace {

using rows::Bf16;
namespace cpublas = at::native::cpublas;

// Blocks of 64 x 64 over the whole inner dimension: w's part is packed once and stays in the cache.
void block_product(const at::Tensor& x, const at::Tensor& w, at::Tensor& out) {
  constexpr int64_t kBlock = 64;
  const int64_t count = x.size(0), inner = x.size(1), columns = w.size(0);
  const at::BFloat16* a = x.const_data_ptr<at::BFloat16>();
  const Bf16* b = reinterpret_cast<const Bf16*>(w.const_data_ptr<at::BFloat16>());
  float* c = out.mutable_data_ptr<float>();
  at::parallel_for(0, (columns + kBlock - 1) / kBlock, 1, [&](int64_t begin, int64_t end) {
    const at::Tensor packed = at::empty({inner * kBlock}, at::kBFloat16);
    at::BFloat16* right = packed.mutable_data_ptr<at::BFloat16>();
    for (int64_t panel = begin; panel < end; ++panel) {
      const int64_t first = panel * kBlock, n = std::min(kBlock, columns - first);
      rows::kernels().bf16.pack_transposed(b + first * inner, inner, inner, n, reinterpret_cast<Bf16*>(right));
      for (int64_t r = 0; r < count; r += kBlock)
        cpublas::brgemm(std::min(kBlock, count - r), n, inner, inner, n, columns, false, a + r * inner, right,
                        c + r * columns + first, true);
    }
    cpublas::brgemm_release(true);
  });
}

}  // namespace

void wide_product(const at::Tensor& x, const at::Tensor& w, at::Tensor& out) {
  if (x.scalar_type() == at::kFloat)
    at::mm_out(out, x, w.t());
  else if (!x.is_cpu())
    at::mm_out(out, x, w.t(), at::kFloat);
  else if (x.size(1) % 2 == 0 && cpublas::could_pack(at::kBFloat16))
    block_product(x.contiguous(), w, out);
  else
    at::mm_out(out, x.to(at::kFloat), w.to(at::kFloat).t());
}

}  // namespace troupe
