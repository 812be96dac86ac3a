#include "core/models/matrix_product.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/native/CPUBlas.h>

#include <cstring>

#include "core/models/kernels/rows.hpp"
#include "core/models/kernels/tile_product.hpp"

namespace troupe {
namespace {

using rows::Bf16;
using tiles::kBlock;
using tiles::kStep;
namespace cpublas = at::native::cpublas;

// ---- on the tile unit -----------------------------------------------------------------------------------------------

constexpr int64_t kDepth = 512;  // of the inner dimension at once: eight blocks of left and one of right stay in caches
constexpr int64_t kGroup = 8;    // blocks of rows, and of columns, of a thread's piece of work
constexpr int64_t kPanel = 128;  // blocks of rows, and of columns, packed at a time

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// Memory that stays a thread's own.
template <class T>
T* scratch(int64_t count) {
  thread_local at::Tensor memory = at::empty({0}, at::kByte);
  const int64_t bytes = count * static_cast<int64_t>(sizeof(T)) + 64;
  if (memory.numel() < bytes) memory = at::empty({bytes}, at::kByte);
  const auto start = reinterpret_cast<uintptr_t>(memory.mutable_data_ptr());
  return reinterpret_cast<T*>((start + 63) / 64 * 64);
}

// sums (+)= left right.
template <class T>
struct TileProduct {
  int64_t m, n, inner;
  tiles::Operand<T> left, right;
  float* sums;     // [m, n]
  int64_t stride;  // of sums
  bool add;        // to what is there

  const tiles::Kernels& unit = *tiles::kernels();
  const tiles::Typed<T>& kernels = unit.template typed<T>();

  // In panels, so that what is packed at a time is bounded.
  void run() const {
    const int64_t bytes = tiles::block_bytes<T>(ceil_div(std::min(inner, kDepth), kStep));
    const int64_t row_blocks = ceil_div(m, kBlock), column_blocks = ceil_div(n, kBlock);
    const int64_t most = std::min(row_blocks, kPanel) + std::min(column_blocks, kPanel);
    std::byte* rows = scratch<std::byte>(most * bytes);
    std::byte* columns = rows + std::min(row_blocks, kPanel) * bytes;
    for (int64_t k = 0; k < inner; k += kDepth)
      for (int64_t i = 0; i < row_blocks; i += kPanel)
        for (int64_t j = 0; j < column_blocks; j += kPanel) {
          const Panel panel{.k = k,
                            .depth = std::min(kDepth, inner - k),
                            .row = i,
                            .row_end = std::min(row_blocks, i + kPanel),
                            .column = j,
                            .column_end = std::min(column_blocks, j + kPanel),
                            .bytes = bytes};
          if (j == 0) pack(left, m, panel, panel.row, panel.row_end, rows);
          pack(right, n, panel, panel.column, panel.column_end, columns);
          multiply(panel, rows, columns);
        }
  }

  struct Panel {
    int64_t k, depth;
    int64_t row, row_end, column, column_end;  // blocks
    int64_t bytes;                             // of a packed block
  };

  // One operand's blocks [first, end). In the order it lies in memory: by rows of the matrix it is stored as.
  void pack(const tiles::Operand<T>& x, int64_t size, const Panel& p, int64_t first, int64_t end,
            std::byte* out) const {
    const auto pack_block = &x == &left ? kernels.pack_left : kernels.pack_right;
    const auto count = [&](int64_t b) { return std::min(kBlock, size - b * kBlock); };
    if (x.inner_first) {
      at::parallel_for(first, end, 1, [&](int64_t from, int64_t to) {
        for (int64_t b = from; b < to; ++b)
          pack_block(part(x, b * kBlock, p.k), count(b), p.depth, out + (b - first) * p.bytes);
      });
      return;
    }
    at::parallel_for(0, ceil_div(p.depth, kStep), 1, [&](int64_t from, int64_t to) {
      for (int64_t step = from; step < to; ++step)
        for (int64_t b = first; b < end; ++b)
          pack_block(part(x, b * kBlock, p.k + step * kStep), count(b), std::min(kStep, p.depth - step * kStep),
                     out + (b - first) * p.bytes + step * tiles::block_bytes<T>(1));
    });
  }

  void multiply(const Panel& p, const std::byte* rows, const std::byte* columns) const {
    const int64_t row_groups = ceil_div(p.row_end - p.row, kGroup),
                  column_groups = ceil_div(p.column_end - p.column, kGroup);
    at::parallel_for(0, row_groups * column_groups, 1, [&](int64_t begin, int64_t end) {
      unit.begin();
      for (int64_t piece = begin; piece < end; ++piece) {
        const int64_t i0 = p.row + piece / column_groups * kGroup, j0 = p.column + piece % column_groups * kGroup;
        for (int64_t j = j0; j < std::min(p.column_end, j0 + kGroup); ++j)
          for (int64_t i = i0; i < std::min(p.row_end, i0 + kGroup); ++i)
            block(i, j, rows + (i - p.row) * p.bytes, columns + (j - p.column) * p.bytes, p.depth, add || p.k > 0);
      }
      unit.end();
    });
  }

  static tiles::Operand<T> part(const tiles::Operand<T>& x, int64_t first, int64_t k) {
    return {x.data + (x.inner_first ? first * x.stride + k : k * x.stride + first), x.stride, x.inner_first};
  }

  void block(int64_t i, int64_t j, const std::byte* rows, const std::byte* columns, int64_t depth, bool adds) const {
    const int64_t steps = ceil_div(depth, kStep), count_m = std::min(kBlock, m - i * kBlock),
                  count_n = std::min(kBlock, n - j * kBlock);
    float* const place = sums + i * kBlock * stride + j * kBlock;
    if (count_m == kBlock && count_n == kBlock) return kernels.multiply(rows, columns, steps, place, stride, adds);
    alignas(64) float whole[kBlock * kBlock] = {};  // the block is one at the edge
    const auto bytes = static_cast<size_t>(count_n) * sizeof(float);
    if (adds)
      for (int64_t r = 0; r < count_m; ++r) std::memcpy(whole + r * kBlock, place + r * stride, bytes);
    kernels.multiply(rows, columns, steps, whole, kBlock, adds);
    for (int64_t r = 0; r < count_m; ++r) std::memcpy(place + r * stride, whole + r * kBlock, bytes);
  }
};

template <class T>
tiles::Operand<T> operand(const at::Tensor& x, bool inner_first) {
  return {static_cast<const T*>(x.const_data_ptr()), x.stride(0), inner_first};
}

constexpr int64_t kLeast = 32;  // rows and columns of a weight matrix, for the tile unit to pay

bool tiled(const at::Tensor& x) {
  return x.is_cpu() && x.stride(1) == 1 && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16) &&
         tiles::kernels() != nullptr;
}

// Products of rows, in float32 alone: in bfloat16 the library's are as fast. Whatever the number of rows is: it must
// not change their bits.
bool tiled(const at::Tensor& x, const at::Tensor& w) {
  return tiled(x) && tiled(w) && x.scalar_type() == at::kFloat && w.scalar_type() == at::kFloat &&
         w.size(0) >= kLeast && w.size(1) >= kLeast;
}

// out [M, N] = x [M, K] times w, stored [N, K] (of_rows) or [K, N].
void tile_product(const at::Tensor& x, const at::Tensor& w, bool of_rows, at::Tensor& out) {
  TileProduct<float>{.m = x.size(0),
                     .n = w.size(of_rows ? 0 : 1),
                     .inner = x.size(1),
                     .left = operand<float>(x, true),
                     .right = operand<float>(w, of_rows),
                     .sums = out.mutable_data_ptr<float>(),
                     .stride = out.stride(0),
                     .add = false}
      .run();
}

template <class T>
void add_tile_product(at::Tensor& sum, const at::Tensor& a, const at::Tensor& b) {
  TileProduct<T>{.m = a.size(1),
                 .n = b.size(1),
                 .inner = a.size(0),
                 .left = operand<T>(a, false),
                 .right = operand<T>(b, false),
                 .sums = static_cast<float*>(sum.mutable_data_ptr()),
                 .stride = sum.stride(0),
                 .add = true}
      .run();
}

// ---- by the library -------------------------------------------------------------------------------------------------

constexpr int64_t kGrain = 16384;

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
  if (tiled(x, w))
    tile_product(x, w, true, out);
  else if (x.scalar_type() == at::kFloat)
    at::mm_out(out, x, w.t());
  else if (!x.is_cpu())
    at::mm_out(out, x, w.t(), at::kFloat);
  else if (x.size(1) % 2 == 0 && cpublas::could_pack(at::kBFloat16))
    block_product(x.contiguous(), w, out);
  else
    at::mm_out(out, x.to(at::kFloat), w.to(at::kFloat).t());
}

void product_of_rows(const at::Tensor& x, const at::Tensor& w, at::Tensor& out) {
  if (tiled(x, w))
    tile_product(x, w, true, out);
  else
    at::mm_out(out, x, w.t());
}

void product(const at::Tensor& dy, const at::Tensor& w, at::Tensor& out) {
  if (tiled(dy, w))
    tile_product(dy, w, false, out);
  else
    at::mm_out(out, dy, w);
}

void add_product(at::Tensor sum, const at::Tensor& a, const at::Tensor& b) {
  if (tiled(a) && tiled(b) && a.scalar_type() == b.scalar_type() && a.size(1) >= kLeast && b.size(1) >= kLeast) {
    if (a.scalar_type() == at::kFloat) return add_tile_product<float>(sum, a, b);
    return add_tile_product<Bf16>(sum, a, b);
  }
  if (a.scalar_type() == at::kFloat) {
    at::addmm_out(sum, sum, a.t(), b);
    return;
  }
  if (!sum.is_cpu()) {
    sum.add_(at::mm(a.t(), b));
    return;
  }
  // In panels of rows: the product of one stays in the cache until it is added, in memory that stays ours.
  constexpr int64_t kPanelElements = 1 << 21;
  thread_local at::Tensor panel_memory = at::empty({0}, at::kBFloat16);
  const int64_t rows_of_sum = sum.size(0), n = sum.size(1);
  const int64_t panel_rows = std::min(rows_of_sum, std::max<int64_t>(1, kPanelElements / n));
  if (panel_memory.numel() < panel_rows * n) panel_memory = at::empty({panel_rows * n}, at::kBFloat16);
  for (int64_t begin = 0; begin < rows_of_sum; begin += panel_rows) {
    const int64_t count = std::min(panel_rows, rows_of_sum - begin);
    at::Tensor product = panel_memory.narrow(0, 0, count * n).view({count, n});
    at::mm_out(product, a.narrow(1, begin, count).t(), b);
    const Bf16* from = static_cast<const Bf16*>(product.const_data_ptr());
    float* to = static_cast<float*>(sum.mutable_data_ptr()) + begin * n;
    at::parallel_for(0, count * n, kGrain, [&](int64_t first, int64_t last) {
      rows::kernels().bf16.accumulate(to + first, from + first, last - first);
    });
  }
}

}  // namespace troupe
