// Packing of one panel (see packed_weights.hpp). No tensor library.
#pragma once

#include <cstddef>
#include <cstdint>

namespace troupe {

// 32 rows of a weight matrix [n, k] become one panel.
struct PanelSource {
  const std::byte* rows[32];            // start of each row; nullptr: zeros
  bool bf16 = false;                    // element type of the rows, else float32
  int64_t k = 0;                        // elements of a row
  int64_t group = 0, group_padded = 0;  // a row's groups of `group` elements lie `group_padded` apart in the panel
};

// `panel`: [k_padded / step][32][step] elements, bfloat16 (step 2, rounded to nearest even) or float32 (step 1); at a
// multiple of 16 bytes.
void pack_panel(const PanelSource& source, int64_t k_padded, bool to_bf16, std::byte* panel);

// One row of n elements, converted; zeros up to n_padded.
void pack_row(const std::byte* row, bool from_bf16, int64_t n, int64_t n_padded, bool to_bf16, std::byte* out);

}  // namespace troupe
