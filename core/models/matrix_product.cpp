#include "core/models/matrix_product.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/native/CPUBlas.h>

#include <algorithm>
#include <cstring>

#include "core/models/kernels/rows.hpp"
#include "core/models/kernels/tile_product.hpp"

namespace troupe {
namespace {

using rows::Bf16;
using tiles::kBlock;
using tiles::kStep;
namespace cpublas = at::native::cpublas;

// ---- in tiles -------------------------------------------------------------------------------------------------------

constexpr int64_t kGroup = 8;    // blocks that a thread packs for itself: about half of its second-level cache
constexpr int64_t kPanel = 128;  // blocks packed at a time for all threads

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// Memory that stays a thread's own.
class Scratch {
 public:
  std::byte* of(int64_t bytes) {
    if (memory_.numel() < bytes + 64) memory_ = at::empty({bytes + 64}, at::kByte);
    const auto start = reinterpret_cast<uintptr_t>(memory_.mutable_data_ptr());
    return reinterpret_cast<std::byte*>((start + 63) / 64 * 64);
  }

 private:
  at::Tensor memory_ = at::empty({0}, at::kByte);
};
thread_local Scratch panel_scratch, group_scratch;

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

  // An operand: `size` rows of left, or columns of right.
  struct Side {
    tiles::Operand<T> x;
    int64_t size;
    void (*pack)(const tiles::Operand<T>& x, int64_t count, int64_t inner, std::byte* out);
    int64_t blocks() const { return ceil_div(size, kBlock); }
  };
  struct Blocks {
    int64_t begin, end;
    int64_t size() const { return end - begin; }
  };
  // Of the inner dimension.
  struct Slice {
    int64_t k, depth;
    int64_t bytes;  // of a packed block
  };

  // Of the smaller operand, panels are packed by all threads for all; of the larger, each thread packs groups of blocks
  // for itself, which stay in its cache while the panel passes.
  void run() const {
    if (m == 0 || n == 0) return;
    const Side rows{left, m, kernels.pack_left}, columns{right, n, kernels.pack_right};
    if (m < n)
      run<false>(columns, rows);
    else
      run<true>(rows, columns);
  }

  template <bool kOwnRows>
  void run(const Side& own, const Side& shared) const {
    const int64_t steps = ceil_div(inner, kStep), slices = ceil_div(steps, kernels.most_steps);
    const int64_t most = kStep * ceil_div(steps, std::max<int64_t>(1, slices));
    for (int64_t k = 0; k < inner; k += most) {
      const int64_t depth = std::min(most, inner - k);
      const Slice slice{k, depth, kernels.step_bytes * ceil_div(depth, kStep)};
      for (int64_t first = 0; first < shared.blocks(); first += kPanel) {
        const Blocks panel{first, std::min(shared.blocks(), first + kPanel)};
        std::byte* const packed = panel_scratch.of(panel.size() * slice.bytes);
        at::parallel_for(panel.begin, panel.end, 1, [&](int64_t begin, int64_t end) {
          pack(shared, slice, {begin, end}, packed + (begin - panel.begin) * slice.bytes);
        });
        multiply<kOwnRows>(own, slice, panel, packed);
      }
    }
  }

  // In the order the operand lies in memory: by rows of the matrix it is stored as.
  void pack(const Side& side, const Slice& slice, const Blocks& blocks, std::byte* out) const {
    const int64_t depth = side.x.inner_first ? slice.depth : kStep;
    for (int64_t k = 0; k < slice.depth; k += depth)
      for (int64_t b = blocks.begin; b < blocks.end; ++b)
        side.pack(part(side.x, b * kBlock, slice.k + k), std::min(kBlock, side.size - b * kBlock),
                  std::min(depth, slice.depth - k),
                  out + (b - blocks.begin) * slice.bytes + k / kStep * kernels.step_bytes);
  }

  // A thread's own blocks are in groups of one size, as many for each thread; where there are fewer than threads, the
  // panel is in parts too.
  template <bool kOwnRows>
  void multiply(const Side& own, const Slice& slice, const Blocks& panel, const std::byte* packed) const {
    const int64_t threads = at::get_num_threads();
    const int64_t groups = std::min(own.blocks(), ceil_div(ceil_div(own.blocks(), kGroup), threads) * threads);
    const int64_t parts = std::min(panel.size(), ceil_div(threads, groups));
    const auto share = [](const Blocks& all, int64_t i, int64_t count) {
      return Blocks{all.begin + all.size() * i / count, all.begin + all.size() * (i + 1) / count};
    };
    at::parallel_for(0, groups * parts, 1, [&](int64_t first, int64_t last) {
      std::byte* const mine = group_scratch.of(kGroup * slice.bytes);
      unit.begin();
      for (int64_t piece = first; piece < last; ++piece) {
        const Blocks group = share({0, own.blocks()}, piece / parts, groups), part = share(panel, piece % parts, parts);
        pack(own, slice, group, mine);
        for (int64_t b = part.begin; b < part.end; ++b)
          for (int64_t a = group.begin; a < group.end; ++a) {
            const std::byte* const of_group = mine + (a - group.begin) * slice.bytes;
            const std::byte* const of_panel = packed + (b - panel.begin) * slice.bytes;
            const int64_t next_a = a + 1 < group.end ? a + 1 : group.begin, next_b = a + 1 < group.end ? b : b + 1;
            if constexpr (kOwnRows)
              block(slice, a, b, of_group, of_panel, place(next_a, next_b));
            else
              block(slice, b, a, of_panel, of_group, place(next_b, next_a));
          }
      }
      unit.end();
    });
  }

  static tiles::Operand<T> part(const tiles::Operand<T>& x, int64_t first, int64_t k) {
    return {x.data + (x.inner_first ? first * x.stride + k : k * x.stride + first), x.stride, x.inner_first};
  }

  float* place(int64_t i, int64_t j) const { return sums + i * kBlock * stride + j * kBlock; }

  void block(const Slice& slice, int64_t i, int64_t j, const std::byte* rows, const std::byte* columns,
             const float* next) const {
    const int64_t steps = ceil_div(slice.depth, kStep);
    const int64_t height = std::min(kBlock, m - i * kBlock), width = std::min(kBlock, n - j * kBlock);
    const bool adds = add || slice.k > 0;
    float* const out = place(i, j);
    if (height == kBlock && width == kBlock) return kernels.multiply(rows, columns, steps, out, stride, adds, next);
    alignas(64) float whole[kBlock * kBlock] = {};  // the block is one at the edge
    const auto bytes = static_cast<size_t>(width) * sizeof(float);
    if (adds)
      for (int64_t r = 0; r < height; ++r) std::memcpy(whole + r * kBlock, out + r * stride, bytes);
    kernels.multiply(rows, columns, steps, whole, kBlock, adds, whole);
    for (int64_t r = 0; r < height; ++r) std::memcpy(out + r * stride, whole + r * kBlock, bytes);
  }
};

template <class T>
tiles::Operand<T> operand(const at::Tensor& x, bool inner_first) {
  return {static_cast<const T*>(x.const_data_ptr()), x.stride(0), inner_first};
}

constexpr int64_t kLeast = 32;  // rows and columns of a weight matrix, for tiles to pay

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

bool has_bf16_blocks() {
  return __builtin_cpu_supports("avx512bf16");
}

void wide_product(const at::Tensor& x, const at::Tensor& w, at::Tensor& out) {
  if (tiled(x, w))
    tile_product(x, w, true, out);
  else if (x.scalar_type() == at::kFloat)
    at::mm_out(out, x, w.t());
  else if (!x.is_cpu())
    at::mm_out(out, x, w.t(), at::kFloat);
  else if (x.size(1) % 2 == 0 && has_bf16_blocks())
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
