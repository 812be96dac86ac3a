#include "core/train/adamw.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <vector>

#include "core/models/kernels/rows.hpp"
#include "core/models/workspace.hpp"

namespace troupe {
namespace {

constexpr int64_t kPiece = 1 << 16;  // elements: independent of the number of threads, so that sums are the same bits

// The same update by tensor operations, for other devices than the CPU.
void plain_update(at::Tensor w, at::Tensor g, at::Tensor m, at::Tensor v, const rows::AdamWStep& s) {
  g.mul_(s.gradient_scale);
  m.lerp_(g, 1.0 - s.beta1);
  v.mul_(s.beta2).addcmul_(g, g, 1.0 - s.beta2);
  w.mul_(s.decay).addcdiv_(m, v.sqrt().mul_(s.root_correction).add_(s.eps), -s.step_size);
  g.zero_();
}

}  // namespace

AdamW::AdamW(ParameterArena& arena, const AdamWConfig& config, ShardGroup* shards)
    : arena_(arena), config_(config), shards_(shards) {
  if (!arena.master().defined()) throw std::invalid_argument("AdamW: these parameters are frozen");
  const auto within = [](const char* name, double value, double low, double high) {
    if (!(value >= low && value < high))
      throw std::invalid_argument(std::string("AdamW: ") + name + " is " + std::to_string(value) + ", expected [" +
                                  std::to_string(low) + ", " + std::to_string(high) + ")");
  };
  const double infinity = std::numeric_limits<double>::infinity();
  within("learning_rate", config.learning_rate, 0, infinity);
  within("beta1", config.beta1, 0, 1);
  within("beta2", config.beta2, 0, 1);
  within("eps", config.eps, 0, infinity);
  within("weight_decay", config.weight_decay, 0, infinity);
  const auto rank = static_cast<size_t>(shards ? shards->rank() : 0);
  bounds_ = shard_bounds(arena.master().numel(), shards ? shards->size() : 1);
  begin_ = bounds_.at(rank);
  end_ = bounds_.at(rank + 1);
}

void AdamW::step(double rate_factor, double gradient_scale) {
  at::NoGradGuard no_grad;
  arena_.renew_compute();  // first: when there is no memory for it, nothing has changed
  const at::Tensor &master = arena_.master(), &compute = arena_.compute();
  if (!m_.defined())
    for (at::Tensor* moment : {&m_, &v_}) {
      *moment = at::empty({end_ - begin_}, master.options());
      prefer_large_pages(*moment);
      moment->zero_();
    }
  ++steps_;
  const double rate = config_.learning_rate * rate_factor, t = static_cast<double>(steps_);
  rows::AdamWStep step{};
  step.beta1 = static_cast<float>(config_.beta1);
  step.beta2 = static_cast<float>(config_.beta2);
  step.eps = static_cast<float>(config_.eps);
  step.step_size = static_cast<float>(rate / (1.0 - std::pow(config_.beta1, t)));
  step.root_correction = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(config_.beta2, t)));
  step.gradient_scale = static_cast<float>(gradient_scale);
  const auto decay_of = [&](const ParameterArena::Span& span) {
    const bool decays = span.decay || config_.decay_norms_and_biases;
    return static_cast<float>(decays ? 1.0 - rate * config_.weight_decay : 1.0);
  };
  if (!master.is_cpu()) {
    for (const ParameterArena::Span& span : arena_.spans()) {
      const int64_t begin = std::max(span.begin, begin_), end = std::min(span.end, end_);
      if (begin >= end) continue;
      const auto part = [&](const at::Tensor& x, int64_t origin) { return x.slice(0, begin - origin, end - origin); };
      step.decay = decay_of(span);
      plain_update(part(master, 0), part(arena_.grad(), 0), part(m_, begin_), part(v_, begin_), step);
    }
    arena_.refresh_compute(begin_, end_);
    return receive_others();
  }
  float *w = master.mutable_data_ptr<float>(), *g = arena_.grad().mutable_data_ptr<float>(),
        *m = m_.mutable_data_ptr<float>(), *v = v_.mutable_data_ptr<float>();
  rows::Bf16* copy = compute.is_same(master) ? nullptr : static_cast<rows::Bf16*>(compute.mutable_data_ptr());
  // Runs of spans with the same decay, cut into pieces.
  struct Piece {
    int64_t begin, end;
    float decay;
  };
  std::vector<Piece> pieces;
  for (const ParameterArena::Span& span : arena_.spans())
    for (int64_t at = std::max(span.begin, begin_), end = std::min(span.end, end_); at < end; at += kPiece)
      pieces.push_back({at, std::min(at + kPiece, end), decay_of(span)});
  at::parallel_for(0, static_cast<int64_t>(pieces.size()), 1, [&](int64_t first, int64_t last) {
    rows::AdamWStep mine = step;
    for (int64_t i = first; i < last; ++i) {
      const Piece& p = pieces[static_cast<size_t>(i)];
      mine.decay = p.decay;
      rows::kernels().adamw(w + p.begin, g + p.begin, m + (p.begin - begin_), v + (p.begin - begin_),
                            copy ? copy + p.begin : nullptr, p.end - p.begin, mine);
    }
  });
  receive_others();
}

void AdamW::receive_others() {
  if (!shards_) return;
  at::Tensor master = arena_.master();
  shards_->gather(master, bounds_);
  for (const auto& [begin, end] : {std::pair(int64_t{0}, begin_), {end_, master.numel()}}) {
    arena_.grad().slice(0, begin, end).zero_();
    arena_.refresh_compute(begin, end);
  }
}

at::Tensor AdamW::whole(const at::Tensor& own) const {
  return shards_ && own.defined() ? gather_at_first(*shards_, own, bounds_) : own;
}

double AdamW::gradient_norm() const {
  const at::Tensor& grad = arena_.grad();
  if (!grad.is_cpu()) return grad.norm().item<double>();
  const float* g = grad.const_data_ptr<float>();
  const int64_t count = grad.numel();
  std::vector<double> sums(static_cast<size_t>((count + kPiece - 1) / kPiece));
  at::parallel_for(0, static_cast<int64_t>(sums.size()), 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i)
      sums[static_cast<size_t>(i)] =
          rows::kernels().sum_of_squares(g + i * kPiece, std::min(kPiece, count - i * kPiece));
  });
  double total = 0;
  for (double sum : sums) total += sum;
  return std::sqrt(total);
}

void AdamW::load(const at::Tensor& m, const at::Tensor& v, int64_t steps) {
  const at::Tensor& master = arena_.master();
  for (const auto& [name, moment] : {std::pair("optimizer.m", &m), {"optimizer.v", &v}})
    if (!moment->defined() || moment->sizes() != master.sizes())
      throw std::invalid_argument(std::string(name) + " must have " + std::to_string(master.numel()) +
                                  " elements, as " + "this model's parameters");
  if (steps < 0) throw std::invalid_argument("optimizer.step is " + std::to_string(steps) + ", expected >= 0");
  m_ = m.slice(0, begin_, end_).to(master.options(), false, true);
  v_ = v.slice(0, begin_, end_).to(master.options(), false, true);
  steps_ = steps;
}

}  // namespace troupe
