// The decoder in at:: operations: the reference that our kernels are tested against, and the path for other devices.
// Sums are in whatever order the library takes, so nothing here is batch-invariant.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <mutex>
#include <vector>

#include "core/generate/cached_decoder.hpp"
#include "core/generate/decoder_sizes.hpp"
#include "core/generate/named_weights.hpp"
#include "core/generate/rope_rows.hpp"

namespace troupe {
namespace {

using kernels::kPageTokens;

// x / rms(x) * weight over the last dimension, in float32.
at::Tensor normalised(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::Tensor floats = x.to(at::kFloat);
  return floats * (floats.square().mean(-1, true) + eps).rsqrt() * weight.to(at::kFloat);
}

// x [R, heads, head_dim], cos and sin [R, 1, head_dim / 2].
at::Tensor rotated(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const std::vector<at::Tensor> halves = x.chunk(2, -1);
  return at::cat({halves[0] * cos - halves[1] * sin, halves[1] * cos + halves[0] * sin}, -1);
}

// Those that are there; a tied head is not visited on its own.
template <class Visit>
void visit(NamedWeights& w, Visit visit_tensor) {
  const auto one = [&](at::Tensor& t) {
    if (t.defined()) visit_tensor(t);
  };
  const bool tied = w.head.is_same(w.embeddings);
  one(w.embeddings);
  if (tied) {
    w.head = w.embeddings;
  } else {
    one(w.head);
  }
  one(w.final_norm);
  for (LayerWeights& l : w.layers) {
    for (at::Tensor* t : {&l.attention_norm, &l.mlp_norm, &l.q, &l.k, &l.v, &l.o, &l.q_bias, &l.k_bias, &l.v_bias,
                          &l.o_bias, &l.q_norm, &l.k_norm, &l.router})
      one(*t);
    for (FeedForwardWeights& f : l.feed_forwards)
      for (at::Tensor* t : {&f.gate, &f.up, &f.down, &f.gate_bias, &f.up_bias, &f.down_bias}) one(*t);
  }
}

void move(NamedWeights& w, c10::Device device, c10::ScalarType dtype) {
  visit(w, [&](at::Tensor& t) { t = t.to(device, dtype, /*non_blocking=*/false, /*copy=*/true); });
}

at::Tensor feed_forward(const FeedForwardWeights& w, const at::Tensor& x) {
  const at::Tensor act = at::silu(at::linear(x, w.gate, w.gate_bias)) * at::linear(x, w.up, w.up_bias);
  return at::linear(act, w.down, w.down_bias).to(at::kFloat);
}

// x [R, hidden]: the token's best experts by their weights, and the shared ones. float32 [R, hidden].
at::Tensor mixed_experts(const LayerWeights& w, const MoeConfig& moe, const at::Tensor& x) {
  const at::Tensor p = at::softmax(at::linear(x.to(at::kFloat), w.router.to(at::kFloat)), 1);
  auto [weights, chosen] = p.topk(moe.per_token, 1);
  if (moe.normalise && moe.per_token > 1) weights = weights / (weights.sum(1, true) + 1e-20);
  at::Tensor y = at::zeros(x.sizes(), x.options().dtype(at::kFloat));
  for (size_t j = 0; j < w.feed_forwards.size(); ++j) {
    if (static_cast<int64_t>(j) >= moe.experts) {
      y += feed_forward(w.feed_forwards[j], x);
      continue;
    }
    const at::Tensor pairs = chosen.eq(static_cast<int64_t>(j)).nonzero();  // row, choice
    if (pairs.size(0) == 0) continue;
    const at::Tensor row = pairs.select(1, 0), weight = weights.index({row, pairs.select(1, 1)}).unsqueeze(1);
    y.index_add_(0, row, weight * feed_forward(w.feed_forwards[j], x.index_select(0, row)));
  }
  return y;
}

// Slices that go through attention in one call: all of one token, or one of several.
struct AttendGroup {
  int64_t first_row = 0, num_rows = 0;
  at::Tensor pages;  // int64 [B, pages]
  at::Tensor mask;   // bool [B, 1, T, keys], true where a query sees a key
};

class PlainDecoder : public CachedDecoder {
 public:
  PlainDecoder(const CachedDecoderOptions& options, const kernels::KernelTable& kernels, c10::ScalarType dtype,
               c10::Device device)
      : config_(options.config),
        sizes_(options.config),
        k_(kernels),
        options_(at::TensorOptions().dtype(dtype).device(device)),
        rope_(options.config),
        blocks_((sizes_.vocab + kernels::kLogitBlock - 1) / kernels::kLogitBlock),
        stats_(static_cast<size_t>(options.max_logits * blocks_)),
        logits_(static_cast<size_t>(options.max_logits * sizes_.vocab_padded)) {
    for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
      const std::vector<int64_t> shape{options.num_pages, kPageTokens, sizes_.num_kv_heads, sizes_.head_dim};
      keys_.push_back(at::zeros(shape, options_));
      values_.push_back(at::zeros(shape, options_));
    }
  }

  void forward(std::span<const TokenSlice> slices) override;
  void compute_logits(std::span<const LogitRequest> requests) override;
  LogitRow logits(int64_t request) override {
    return {logits_.data() + request * sizes_.vocab_padded, stats_.data() + request * blocks_, sizes_.vocab};
  }
  void copy_page(int32_t from, int32_t to) override {
    for (auto* cache : {&keys_, &values_})
      for (at::Tensor& layer : *cache) layer.select(0, to).copy_(layer.select(0, from));
  }
  void prepare(const StateDict& weights) override;
  bool swap() override;
  void replace(const StateDict& weights) override {
    prepare(weights);
    swap();
  }
  bool holds(const StateDict& weights) const override;
  const kernels::KernelTable& kernels() const override { return k_; }
  const char* name() const override { return "plain"; }
  int64_t weight_bytes() const override { return weight_bytes_; }

 private:
  void plan(std::span<const TokenSlice> slices);
  void plan_attention(std::span<const TokenSlice> slices, int64_t first_row);
  at::Tensor attend(const at::Tensor& q, int64_t layer) const;
  at::Tensor layer_output(int64_t layer, const at::Tensor& x);
  at::Tensor on_device(const std::vector<int64_t>& values) const {
    return at::tensor(values, at::kLong).to(options_.device());
  }

  const DecoderConfig config_;
  const DecoderSizes sizes_;
  const kernels::KernelTable& k_;
  const at::TensorOptions options_;
  RopeRows rope_;
  const int64_t blocks_;
  std::vector<kernels::BlockStats> stats_;
  std::vector<float> logits_;
  std::vector<at::Tensor> keys_, values_;  // per layer [page][16][kv head][head_dim]

  at::Tensor hidden_;                // float32 [R, hidden], of the last pass
  at::Tensor tokens_, page_, slot_;  // int64 [R]
  at::Tensor cos_, sin_;             // float32 [R, 1, head_dim / 2]
  std::vector<AttendGroup> groups_;

  std::unique_ptr<NamedWeights> front_;
  std::mutex back_mutex_;  // guards back_
  std::unique_ptr<NamedWeights> back_;
  int64_t weight_bytes_ = 0;
};

void PlainDecoder::prepare(const StateDict& weights) {
  auto named = std::make_unique<NamedWeights>(config_, weights);
  move(*named, options_.device(), c10::typeMetaToScalarType(options_.dtype()));
  const std::lock_guard lock(back_mutex_);
  back_ = std::move(named);
}

bool PlainDecoder::holds(const StateDict& weights) const {
  NamedWeights given(config_, weights);
  std::vector<at::Tensor> expected;
  visit(given, [&](at::Tensor& t) { expected.push_back(t); });
  bool same = true;
  std::size_t next = 0;
  visit(*front_, [&](at::Tensor& t) {
    same = same && at::equal(t, expected.at(next).to(t.device(), t.scalar_type()));
    ++next;
  });
  return same;
}

bool PlainDecoder::swap() {
  const std::lock_guard lock(back_mutex_);
  if (!back_) return false;
  front_ = std::move(back_);
  weight_bytes_ = static_cast<int64_t>(front_->head.nbytes());
  for (const LayerWeights& l : front_->layers) {
    for (const at::Tensor& t : {l.q, l.k, l.v, l.o}) weight_bytes_ += static_cast<int64_t>(t.nbytes());
    const auto& one = l.feed_forwards[0];  // one token goes through rows_per_token of them
    weight_bytes_ +=
        sizes_.rows_per_token * static_cast<int64_t>(one.gate.nbytes() + one.up.nbytes() + one.down.nbytes());
  }
  return true;
}

// `slices`: one, or several of one token each.
void PlainDecoder::plan_attention(std::span<const TokenSlice> slices, int64_t first_row) {
  const auto num_tokens = static_cast<int64_t>(slices[0].tokens.size());
  int64_t keys = 0;
  for (const TokenSlice& s : slices) keys = std::max(keys, s.start + num_tokens);
  const int64_t num_pages = round_up(keys, kPageTokens) / kPageTokens;
  std::vector<int64_t> pages, starts;
  for (const TokenSlice& s : slices) {
    const int64_t own = round_up(s.start + num_tokens, kPageTokens) / kPageTokens;
    for (int64_t i = 0; i < num_pages; ++i) pages.push_back(i < own ? s.pages[i] : s.pages[0]);
    starts.push_back(s.start);
  }
  const auto num_slices = static_cast<int64_t>(slices.size());
  const at::Tensor queries = at::tensor(starts, at::kLong).view({num_slices, 1, 1, 1}) +
                             at::arange(num_tokens, at::kLong).view({1, 1, num_tokens, 1});
  const at::Tensor positions = at::arange(num_pages * kPageTokens, at::kLong).view({1, 1, 1, -1});
  groups_.push_back({.first_row = first_row,
                     .num_rows = num_slices * num_tokens,
                     .pages = on_device(pages).view({num_slices, num_pages}),
                     .mask = positions.le(queries).to(options_.device())});
}

void PlainDecoder::plan(std::span<const TokenSlice> slices) {
  std::vector<int64_t> tokens, page, slot;
  std::vector<float> cos, sin;
  int64_t last = 0;
  for (const TokenSlice& s : slices) last = std::max(last, s.start + static_cast<int64_t>(s.tokens.size()) - 1);
  rope_.begin_pass(last);
  groups_.clear();
  for (size_t i = 0; i < slices.size();) {
    size_t end = i + 1;
    if (slices[i].tokens.size() == 1)
      while (end < slices.size() && slices[end].tokens.size() == 1) ++end;
    plan_attention(slices.subspan(i, end - i), static_cast<int64_t>(tokens.size()));
    for (; i < end; ++i) {
      const TokenSlice& s = slices[i];
      const auto n = static_cast<int64_t>(s.tokens.size()), half = sizes_.head_dim / 2;
      const RopeRows::Rows turns = rope_.rows(s.start, n, s.sequence_length);
      cos.insert(cos.end(), turns.cos, turns.cos + n * half);
      sin.insert(sin.end(), turns.sin, turns.sin + n * half);
      for (int64_t t = 0; t < n; ++t) {
        tokens.push_back(s.tokens[static_cast<size_t>(t)]);
        page.push_back(s.pages[(s.start + t) / kPageTokens]);
        slot.push_back((s.start + t) % kPageTokens);
      }
    }
  }
  tokens_ = on_device(tokens);
  page_ = on_device(page);
  slot_ = on_device(slot);
  cos_ = at::tensor(cos).view({-1, 1, sizes_.head_dim / 2}).to(options_.device());
  sin_ = at::tensor(sin).view({-1, 1, sizes_.head_dim / 2}).to(options_.device());
}

// q [R, heads, head_dim] -> [R, heads * head_dim]
at::Tensor PlainDecoder::attend(const at::Tensor& q, int64_t layer) const {
  std::vector<at::Tensor> outputs;
  for (const AttendGroup& g : groups_) {
    const int64_t num_slices = g.pages.size(0), num_tokens = g.num_rows / num_slices;
    const auto cached = [&](const at::Tensor& cache) {  // -> [B, heads, keys, head_dim]
      const at::Tensor kv = cache.index({g.pages}).view({num_slices, -1, sizes_.num_kv_heads, sizes_.head_dim});
      return kv.transpose(1, 2).repeat_interleave(sizes_.num_heads / sizes_.num_kv_heads, 1);
    };
    const at::Tensor queries = q.narrow(0, g.first_row, g.num_rows)
                                   .view({num_slices, num_tokens, sizes_.num_heads, sizes_.head_dim})
                                   .transpose(1, 2);
    const at::Tensor mixed = at::scaled_dot_product_attention(queries, cached(keys_[static_cast<size_t>(layer)]),
                                                              cached(values_[static_cast<size_t>(layer)]), g.mask);
    outputs.push_back(mixed.transpose(1, 2).reshape({g.num_rows, -1}));
  }
  return outputs.size() == 1 ? outputs[0] : at::cat(outputs, 0);
}

// x float32 [R, hidden]
at::Tensor PlainDecoder::layer_output(int64_t layer, const at::Tensor& x) {
  const LayerWeights& w = front_->layers[static_cast<size_t>(layer)];
  const at::Tensor h = normalised(x, w.attention_norm, config_.rms_norm_eps).to(options_.dtype());
  const auto heads = [&](const at::Tensor& weight, const at::Tensor& bias) {
    return at::linear(h, weight, bias).view({h.size(0), -1, sizes_.head_dim});
  };
  at::Tensor q = heads(w.q, w.q_bias).to(at::kFloat), k = heads(w.k, w.k_bias).to(at::kFloat);
  if (config_.qk_norm) {
    q = normalised(q, w.q_norm, config_.rms_norm_eps);
    k = normalised(k, w.k_norm, config_.rms_norm_eps);
  }
  keys_[static_cast<size_t>(layer)].index_put_({page_, slot_}, rotated(k, cos_, sin_).to(options_.dtype()));
  values_[static_cast<size_t>(layer)].index_put_({page_, slot_}, heads(w.v, w.v_bias));
  const at::Tensor attended = attend(rotated(q, cos_, sin_).to(options_.dtype()), layer);
  const at::Tensor y = x + at::linear(attended, w.o, w.o_bias).to(at::kFloat);
  const at::Tensor h2 = normalised(y, w.mlp_norm, config_.rms_norm_eps).to(options_.dtype());
  return y + (w.router.defined() ? mixed_experts(w, config_.moe, h2) : feed_forward(w.feed_forwards[0], h2));
}

void PlainDecoder::forward(std::span<const TokenSlice> slices) {
  const at::NoGradGuard no_grad;
  plan(slices);
  hidden_ = at::embedding(front_->embeddings, tokens_).to(at::kFloat);
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) hidden_ = layer_output(layer, hidden_);
}

void PlainDecoder::compute_logits(std::span<const LogitRequest> requests) {
  const at::NoGradGuard no_grad;
  std::vector<int64_t> rows;
  for (const LogitRequest& r : requests) rows.push_back(r.row);
  const at::Tensor h = normalised(hidden_.index_select(0, on_device(rows)), front_->final_norm, config_.rms_norm_eps);
  const at::Tensor all = at::linear(h.to(options_.dtype()), front_->head).to(at::kFloat).to(at::kCPU).contiguous();
  for (size_t i = 0; i < requests.size(); ++i) {
    float* row = logits_.data() + static_cast<int64_t>(i) * sizes_.vocab_padded;
    const float* from = all.const_data_ptr<float>() + static_cast<int64_t>(i) * sizes_.vocab;
    std::copy(from, from + sizes_.vocab, row);
    std::fill(row + sizes_.vocab, row + sizes_.vocab_padded, -std::numeric_limits<float>::infinity());
    for (int64_t b = 0; b < blocks_; ++b) {
      const int64_t first = b * kernels::kLogitBlock, count = std::min(kernels::kLogitBlock, sizes_.vocab - first);
      stats_[i * static_cast<size_t>(blocks_) + static_cast<size_t>(b)] =
          k_.logit_stats(row + first, round_up(count, 16), requests[i].inverse_temperature);
    }
  }
}

}  // namespace

std::unique_ptr<CachedDecoder> make_plain_decoder(const CachedDecoderOptions& options,
                                                  const kernels::KernelTable& kernels, c10::ScalarType dtype,
                                                  c10::Device device) {
  return std::make_unique<PlainDecoder>(options, kernels, dtype, device);
}

}  // namespace troupe
