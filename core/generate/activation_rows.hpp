// A row-major matrix of activations.
#pragma once

#include "core/generate/decoder_sizes.hpp"
#include "core/generate/memory_block.hpp"

namespace troupe {

// Floats or elements, its rows readable up to a multiple of kRowPad, counted from any row.
struct Rows {
  Rows(int64_t rows, int64_t cols, int64_t element_size)
      : cols(cols),
        row_bytes(cols * element_size),
        block(static_cast<size_t>((round_up(rows, kernels::kRowPad) + kernels::kRowPad) * cols * element_size)) {}
  std::byte* at(int64_t row) const { return block.data() + row * row_bytes; }
  float* floats(int64_t row) const { return reinterpret_cast<float*>(at(row)); }

  int64_t cols, row_bytes;
  MemoryBlock block;
};

}  // namespace troupe
