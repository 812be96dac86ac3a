#include "core/generate/rope_rows.hpp"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/models/rope.hpp"

namespace troupe {

RopeRows::RopeRows(const DecoderConfig& config) : config_(config), half_(config.head_dim / 2) {
  rope_frequencies(config, 0);  // an unknown type is refused here, not in the first pass
}

void RopeRows::append(int64_t first, int64_t count, int64_t sequence_length, std::vector<float>& cos,
                      std::vector<float>& sin) const {
  const RopeFrequencies f = rope_frequencies(config_, sequence_length);
  const at::Tensor positions = at::arange(first, first + count, at::kFloat).unsqueeze(1);
  const at::Tensor angles = positions * f.inverse;
  const at::Tensor c = angles.cos().mul_(f.attention_scale).contiguous();
  const at::Tensor s = angles.sin().mul_(f.attention_scale).contiguous();
  cos.insert(cos.end(), c.const_data_ptr<float>(), c.const_data_ptr<float>() + c.numel());
  sin.insert(sin.end(), s.const_data_ptr<float>(), s.const_data_ptr<float>() + s.numel());
}

void RopeRows::begin_pass(int64_t max_position) {
  long_.clear();
  const int64_t have = static_cast<int64_t>(cos_.size()) / half_;
  if (max_position < have) return;
  const int64_t want = std::max(max_position + 1, std::min(2 * have, config_.max_positions));
  append(have, std::max<int64_t>(want - have, 256), 0, cos_, sin_);
}

RopeRows::Rows RopeRows::rows(int64_t first, int64_t count, int64_t sequence_length) {
  if (config_.rope.type != "dynamic" || sequence_length <= config_.max_positions)
    return {cos_.data() + first * half_, sin_.data() + first * half_};
  Long& turned = long_.emplace_back();
  append(first, count, sequence_length, turned.cos, turned.sin);
  return {turned.cos.data(), turned.sin.data()};  // the vectors' own memory: stays where it is when long_ grows
}

}  // namespace troupe
