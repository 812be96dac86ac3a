// Cosines and sines by position, kept on the host and grown on demand. One thread grows; any number read afterwards.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/models/config.hpp"

namespace troupe {

class RopeRows {
 public:
  explicit RopeRows(const DecoderConfig& config);

  // Makes the rows [first, first + count) available, as a sequence of `sequence_length` tokens turns them (its length
  // matters for "dynamic" beyond max_positions only: as in transformers, what lies in the cache keeps the turn of the
  // length at which it was computed). Returns them: `count` rows of cosines, `count` rows of sines, [head_dim / 2]
  // each.
  struct Rows {
    const float *cos, *sin;
  };
  Rows rows(int64_t first, int64_t count, int64_t sequence_length);

  // Ends the life of rows of long "dynamic" sequences; the others live as long as this, until the table grows.
  void begin_pass(int64_t max_position);

 private:
  void append(int64_t first, int64_t count, int64_t sequence_length, std::vector<float>& cos,
              std::vector<float>& sin) const;

  const DecoderConfig config_;
  const int64_t half_;
  std::vector<float> cos_, sin_;  // [positions so far][half]
  struct Long {
    std::vector<float> cos, sin;
  };
  std::vector<Long> long_;  // of this pass
};

}  // namespace troupe
