#include "core/models/rope.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <stdexcept>

namespace troupe {
namespace {

// base ^ (2i / head_dim), float32 [head_dim / 2].
at::Tensor wavelength_bases(double base, int64_t head_dim) {
  return at::pow(at::Scalar(base), at::arange(0, head_dim, 2, at::kLong).to(at::kFloat).div(head_dim));
}

at::Tensor plain_frequencies(double base, int64_t head_dim) {
  return wavelength_bases(base, head_dim).reciprocal();
}

int64_t original_positions(const DecoderConfig& config) {
  return config.rope.original_max_positions > 0 ? config.rope.original_max_positions : config.max_positions;
}

// "NTK-aware" scaling: the base grows with the sequence beyond the trained length.
at::Tensor dynamic_frequencies(const DecoderConfig& config, int64_t sequence_length) {
  const double trained = static_cast<double>(config.max_positions);
  const double length = std::max(static_cast<double>(sequence_length), trained);
  const double dim = static_cast<double>(config.head_dim);
  const double growth = config.rope.factor * length / trained - (config.rope.factor - 1);
  return plain_frequencies(config.rope.theta * std::pow(growth, dim / (dim - 2)), config.head_dim);
}

// Llama 3: long waves are slowed by `factor`, short ones stay, between them a linear blend.
at::Tensor llama3_frequencies(const DecoderConfig& config) {
  const RopeConfig& rope = config.rope;
  const double context = static_cast<double>(original_positions(config));
  const at::Tensor plain = plain_frequencies(rope.theta, config.head_dim);
  const at::Tensor wavelength = plain.reciprocal().mul(2 * std::numbers::pi);
  const at::Tensor is_long = wavelength.gt(context / rope.low_freq_factor);
  const at::Tensor is_short = wavelength.lt(context / rope.high_freq_factor);
  const at::Tensor scaled = at::where(is_long, plain / rope.factor, plain);
  const at::Tensor smooth =
      (wavelength.reciprocal() * context - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  const at::Tensor blend = (1 - smooth) * scaled / rope.factor + smooth * scaled;
  return at::where(is_long.logical_or(is_short), scaled, blend);
}

double yarn_scale(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

double yarn_attention_scale(const RopeConfig& rope) {
  if (rope.attention_factor != 0) return rope.attention_factor;
  if (rope.mscale != 0 && rope.mscale_all_dim != 0)
    return yarn_scale(rope.factor, rope.mscale) / yarn_scale(rope.factor, rope.mscale_all_dim);
  return yarn_scale(rope.factor, 1.0);
}

// YaRN (Peng et al. 2023): dimensions that turn less than beta_slow times within the trained context are interpolated,
// those that turn more than beta_fast times are left alone, a ramp between them.
at::Tensor yarn_frequencies(const DecoderConfig& config) {
  const RopeConfig& rope = config.rope;
  const double dim = static_cast<double>(config.head_dim);
  const auto dimension_of = [&](double rotations) {
    return dim * std::log(static_cast<double>(original_positions(config)) / (rotations * 2 * std::numbers::pi)) /
           (2 * std::log(rope.theta));
  };
  double low = dimension_of(rope.beta_fast), high = dimension_of(rope.beta_slow);
  if (rope.truncate) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0), high = std::min(high, dim - 1);
  if (low == high) high += 0.001;
  const at::Tensor ramp = at::arange(config.head_dim / 2, at::kFloat).sub(low).div(high - low).clamp(0, 1);
  const at::Tensor bases = wavelength_bases(rope.theta, config.head_dim);
  const at::Tensor interpolated = bases.mul(rope.factor).reciprocal(), extrapolated = bases.reciprocal();
  const at::Tensor keep = 1 - ramp;
  return interpolated * (1 - keep) + extrapolated * keep;
}

}  // namespace

RopeFrequencies rope_frequencies(const DecoderConfig& config, int64_t sequence_length) {
  const RopeConfig& rope = config.rope;
  if (rope.type == "default") return {plain_frequencies(rope.theta, config.head_dim)};
  if (rope.type == "linear") return {plain_frequencies(rope.theta, config.head_dim).div(rope.factor)};
  if (rope.type == "dynamic") return {dynamic_frequencies(config, sequence_length)};
  if (rope.type == "llama3") return {llama3_frequencies(config)};
  if (rope.type == "yarn") return {yarn_frequencies(config), yarn_attention_scale(rope)};
  throw std::invalid_argument("rope type '" + rope.type + "': expected default, linear, dynamic, yarn or llama3");
}

RopeTable rope_table(const DecoderConfig& config, const PackedTokens& packed) {
  const auto& bounds = packed.cu_seqlens;
  const at::Tensor positions = packed.positions.to(at::kFloat).unsqueeze(1);
  RopeFrequencies frequencies = rope_frequencies(config, 0);
  at::Tensor angles = positions * frequencies.inverse.to(positions.device());
  if (config.rope.type == "dynamic") {  // each sequence has the frequencies of its own length, as if it were alone
    for (size_t b = 0; b + 1 < bounds.size(); ++b) {
      const int64_t begin = bounds[b], end = bounds[b + 1];
      const int64_t length = packed.positions.slice(0, begin, end).max().item<int64_t>() + 1;
      if (length <= config.max_positions) continue;
      angles.slice(0, begin, end) =
          positions.slice(0, begin, end) * rope_frequencies(config, length).inverse.to(positions.device());
    }
  }
  return {angles.cos().mul_(frequencies.attention_scale), angles.sin().mul_(frequencies.attention_scale)};
}

}  // namespace troupe
