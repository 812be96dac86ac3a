#include "core/algorithms/loss_batch.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <stdexcept>

namespace troupe {

void LossMetrics::add_mean(const std::string& name, double sum, double count) {
  Mean& mean = means_[name];
  mean.sum += sum;
  mean.count += count;
}

void LossMetrics::add_total(const std::string& name, double value) {
  totals_[name] += value;
}

void LossMetrics::add_deviation(const std::string& name, double sum, double sum_of_squares, double count) {
  Moments& moments = deviations_[name];
  moments.sum += sum;
  moments.squares += sum_of_squares;
  moments.count += count;
}

void LossMetrics::add_max(const std::string& name, double value) {
  const auto [it, inserted] = maxima_.emplace(name, value);
  if (!inserted) it->second = std::max(it->second, value);
}

void LossMetrics::add(const LossMetrics& other) {
  for (const auto& [name, mean] : other.means_) add_mean(name, mean.sum, mean.count);
  for (const auto& [name, m] : other.deviations_) add_deviation(name, m.sum, m.squares, m.count);
  for (const auto& [name, value] : other.totals_) add_total(name, value);
  for (const auto& [name, value] : other.maxima_) add_max(name, value);
}

std::map<std::string, double> LossMetrics::values() const {
  std::map<std::string, double> out = totals_;
  out.insert(maxima_.begin(), maxima_.end());
  for (const auto& [name, mean] : means_)
    if (mean.count > 0) out[name] = mean.sum / mean.count;
  for (const auto& [name, m] : deviations_)
    if (m.count > 0) out[name] = std::sqrt(std::max(m.squares / m.count - std::pow(m.sum / m.count, 2), 0.0));
  return out;
}

std::string LossMetrics::text() const {
  std::string out;
  const auto line = [&](char kind, const std::string& name, double a, double b) {
    char numbers[80];
    std::snprintf(numbers, sizeof numbers, " %a %a\n", a, b);
    out += kind + name + numbers;
  };
  for (const auto& [name, mean] : means_) line('m', name, mean.sum, mean.count);
  for (const auto& [name, m] : deviations_) line('d', name, m.sum, m.squares), line('n', name, m.count, 0);
  for (const auto& [name, value] : totals_) line('t', name, value, 0);
  for (const auto& [name, value] : maxima_) line('x', name, value, 0);
  return out;
}

void LossMetrics::add_text(const std::string& text) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t space = line.find(' ');
    char* end = nullptr;
    const double a = space == line.npos ? 0 : std::strtod(line.c_str() + space, &end);
    const char* after = end;
    const double b = end == nullptr ? 0 : std::strtod(after, &end);
    if (line.size() < 2 || end == after || *end != 0) throw std::invalid_argument("loss metrics: '" + line + "'");
    const std::string name = line.substr(1, space - 1);
    if (line[0] == 'm') add_mean(name, a, b);
    if (line[0] == 'd') add_deviation(name, a, b, 0);
    if (line[0] == 'n') add_deviation(name, 0, 0, a);
    if (line[0] == 't') add_total(name, a);
    if (line[0] == 'x') add_max(name, a);
  }
}

Sequences::Sequences(const at::Tensor& lengths, int64_t num_tokens) : count_(lengths.numel()) {
  if (lengths.dim() != 1 || lengths.scalar_type() != at::kLong)
    throw std::invalid_argument("lengths: expected int64 of one dimension");
  if (count_ > 0 && lengths.min().item<int64_t>() < 0) throw std::invalid_argument("lengths: a negative length");
  const int64_t sum = lengths.sum().item<int64_t>();
  if (sum != num_tokens)
    throw std::invalid_argument("lengths: they sum to " + std::to_string(sum) + ", but there are " +
                                std::to_string(num_tokens) + " tokens");
  sequence_of_token_ = at::repeat_interleave(lengths);
}

at::Tensor Sequences::sum(const at::Tensor& per_token) const {
  return at::zeros({count_}, per_token.options()).index_add(0, sequence_of_token_, per_token);
}

at::Tensor Sequences::spread(const at::Tensor& per_sequence) const {
  return per_sequence.index_select(0, sequence_of_token_);
}

namespace {

void check_tensor(const char* name, const at::Tensor& tensor, int64_t size, const at::Tensor& like) {
  if (!tensor.defined()) return;
  if (tensor.dim() != 1 || tensor.size(0) != size || tensor.scalar_type() != like.scalar_type())
    throw std::invalid_argument(std::string(name) + ": expected " + c10::toString(like.scalar_type()) + " [" +
                                std::to_string(size) + "], got " + c10::toString(tensor.scalar_type()) + " " +
                                c10::str(tensor.sizes()));
}

}  // namespace

void check(const LossBatch& b) {
  if (!b.logprobs.defined() || b.logprobs.dim() != 1 || !b.logprobs.is_floating_point())
    throw std::invalid_argument("logprobs: expected a float tensor of one dimension");
  if (!b.mask.defined() || !b.lengths.defined() || !b.advantages.defined())
    throw std::invalid_argument("a loss batch needs mask, lengths and advantages");
  const int64_t num_tokens = b.logprobs.numel();
  check_tensor("old_logprobs", b.old_logprobs, num_tokens, b.logprobs);
  check_tensor("behaviour_logprobs", b.behaviour_logprobs, num_tokens, b.logprobs);
  check_tensor("reference_logprobs", b.reference_logprobs, num_tokens, b.logprobs);
  check_tensor("entropy", b.entropy, num_tokens, b.logprobs);
  check_tensor("advantages", b.advantages, b.lengths.numel(), b.logprobs);
  if (b.mask.dim() != 1 || b.mask.size(0) != num_tokens ||
      (b.mask.scalar_type() != at::kBool && b.mask.scalar_type() != at::kByte))
    throw std::invalid_argument("mask: expected uint8 or bool [" + std::to_string(num_tokens) + "]");
}

}  // namespace troupe
