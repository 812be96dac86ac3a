// The AMX tile unit for every GEMM, whatever the number of rows (it adds in another order than AVX-512, so both in one
// engine would break batch invariance); AVX512-BF16 for the rest.
// Compiled with the flags of kernels_avx512bf16.cpp and -mamx-tile -mamx-bf16.
#include <sys/syscall.h>
#include <unistd.h>

#include "core/generate/kernels_sets.hpp"
#include "core/generate/simd_avx512bf16.hpp"

namespace troupe::kernels {
namespace {

using Element = BFloat16<Avx512Bf16>;

inline constexpr int64_t kTileRows = 16;
inline constexpr int64_t kTileK = 32;                              // bfloat16 numbers in a tile's row
inline constexpr int64_t kWeightStrideBytes = kPanelCols * 2 * 2;  // one pair of k of the whole panel

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// The first rows meet the weights in memory; while two tiles of rows are multiplied, the tile loads alone keep too few
// lines in flight. (One tile of rows does not need it: measured the same or slower with it.)
inline void fetch_ahead(const uint16_t* w) {
  const char* ahead = reinterpret_cast<const char*>(w) + 4096;
  for (int line = 0; line < 32; ++line) _mm_prefetch(ahead + 64 * line, _MM_HINT_T0);
}

// 32 rows x one panel: tiles 0-3 sums, 4-5 rows of x, 6-7 weights.
inline void multiply_two(const uint16_t* x, int64_t x_stride, const uint16_t* w, int64_t k, bool fetch, float* tile) {
  const int64_t x_bytes = x_stride * 2;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t s = 0; s < k; s += kTileK, w += kTileK * kPanelCols) {
    if (fetch) fetch_ahead(w);
    _tile_loadd(4, x + s, x_bytes);
    _tile_loadd(6, w, kWeightStrideBytes);
    _tile_loadd(7, w + 32, kWeightStrideBytes);
    _tile_loadd(5, x + kTileRows * x_stride + s, x_bytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, tile, kPanelCols * 4);
  _tile_stored(1, tile + 16, kPanelCols * 4);
  _tile_stored(2, tile + kTileRows * kPanelCols, kPanelCols * 4);
  _tile_stored(3, tile + kTileRows * kPanelCols + 16, kPanelCols * 4);
}

// 16 rows x one panel.
inline void multiply_one(const uint16_t* x, int64_t x_stride, const uint16_t* w, int64_t k, float* tile) {
  _tile_zero(0);
  _tile_zero(1);
  for (int64_t s = 0; s < k; s += kTileK, w += kTileK * kPanelCols) {
    _tile_loadd(4, x + s, x_stride * 2);
    _tile_loadd(6, w, kWeightStrideBytes);
    _tile_loadd(7, w + 32, kWeightStrideBytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
  }
  _tile_stored(0, tile, kPanelCols * 4);
  _tile_stored(1, tile + 16, kPanelCols * 4);
}

// x is read up to a multiple of 16 rows (kRowPad); what the rows past the last hold does not matter.
void gemm_amx(const GemmCall& c, int64_t first_panel, int64_t last_panel) {
  const TileConfig config;
  _tile_loadconfig(&config);
  alignas(64) float tile[2 * kTileRows * kPanelCols];
  for (int64_t panel = first_panel; panel < last_panel; ++panel) {
    const auto* w = static_cast<const uint16_t*>(c.w) + panel * c.k * kPanelCols;
    for (int64_t row = 0; row < c.rows; row += 2 * kTileRows) {
      const auto* x = static_cast<const uint16_t*>(c.x) + row * c.x_stride;
      const int64_t rows = c.rows - row < 2 * kTileRows ? c.rows - row : 2 * kTileRows;
      if (rows > kTileRows) {
        multiply_two(x, c.x_stride, w, c.k, row == 0, tile);
      } else {
        multiply_one(x, c.x_stride, w, c.k, tile);
      }
      finish_tile<Avx512Bf16, Element>(c, tile, rows, row, panel);
    }
  }
  _tile_release();
}

constexpr KernelTable amx_table() {
  KernelTable table = make_table<Avx512Bf16, Element>("amx");
  table.gemm = gemm_amx;
  return table;
}

}  // namespace

const KernelTable kAmxBFloat16 = amx_table();

bool allow_amx() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace troupe::kernels
