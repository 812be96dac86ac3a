// The decoder on our own kernels. All threads walk through the same phases (worker_pool.hpp); each phase is split by
// output, so neither the number of threads nor who does what changes a bit.
#include <cstring>
#include <limits>
#include <mutex>
#include <optional>
#include <vector>

#include "core/generate/cached_decoder.hpp"
#include "core/generate/decoder_sizes.hpp"
#include "core/generate/expert_pass.hpp"
#include "core/generate/packed_weights.hpp"
#include "core/generate/rope_rows.hpp"

namespace troupe {
namespace {

using kernels::kPageTokens;
using kernels::kPanelCols;

struct RowPlace {  // where a token's keys and values go, and how it is turned
  int32_t token;
  int32_t page;
  int32_t slot;
  const float *cos, *sin;
};

struct AttendTask {
  const TokenSlice* slice;
  int64_t row;    // of the task's first token in the pass
  int64_t first;  // of the task's tokens in the slice
  int64_t count;
  int64_t kv_head;
  int64_t first_head, num_heads;  // query heads of kv_head
};

constexpr int64_t kAttendTokens = 16;  // of a prompt in one task
constexpr int64_t kPhasesPerLayer = 8, kPhasesPerExpertLayer = 11;

class PackedDecoder : public CachedDecoder {
 public:
  PackedDecoder(const CachedDecoderOptions& options, const kernels::KernelTable& kernels, WorkerPool& pool)
      : config_(options.config),
        s_(options.config),
        k_(kernels),
        pool_(pool),
        element_(kernels.bf16 ? 2 : 4),
        layer_bytes_(options.num_pages * s_.page_elements * element_),
        cache_(static_cast<size_t>(layer_bytes_ * config_.num_layers)),
        rope_(config_),
        x_(options.max_rows, s_.hidden_padded, 4),
        normed_(options.max_rows, s_.hidden_padded, element_),
        qkv_(options.max_rows, s_.qkv_width, 4),
        q_(options.max_rows, s_.attention_width, element_),
        attended_(options.max_rows, s_.attention_width, element_),
        act_(config_.moe.experts > 0 ? 0 : options.max_rows, s_.intermediate_padded, element_),
        logits_(options.max_logits, s_.vocab_padded, 4),
        blocks_((s_.vocab + kernels::kLogitBlock - 1) / kernels::kLogitBlock),
        stats_(static_cast<size_t>(options.max_logits * blocks_)),
        scratch_(static_cast<size_t>(pool.threads())) {
    if (config_.moe.experts > 0) experts_.emplace(config_, k_, options.max_rows);
  }

  void forward(std::span<const TokenSlice> slices) override;
  void compute_logits(std::span<const LogitRequest> requests) override;
  LogitRow logits(int64_t request) override {
    return {logits_.floats(request), stats_.data() + request * blocks_, s_.vocab};
  }
  void copy_page(int32_t from, int32_t to) override;
  void discard_cache() override { cache_.discard(); }
  void prepare(const StateDict& weights) override;
  bool swap() override;
  void replace(const StateDict& weights) override;
  bool holds(const StateDict& weights) const override { return front_->holds(weights, pool_.threads()); }
  const kernels::KernelTable& kernels() const override { return k_; }
  const char* name() const override { return k_.name; }
  int64_t weight_bytes() const override { return static_cast<int64_t>(front_->active_bytes()); }

 private:
  void plan(std::span<const TokenSlice> slices);
  void plan_attention(const TokenSlice& slice, int64_t row, bool split_heads);
  void walk(int thread);
  void embed(int64_t first, int64_t last);
  void normalise(const std::vector<float>& weight, int64_t first, int64_t last);
  void place(int64_t layer, int64_t first, int64_t last);
  void attend_task(const AttendTask& task, int64_t layer, float* scratch);
  void normalise_requested(std::span<const LogitRequest> requests, int64_t first, int64_t last);
  void logit_blocks(std::span<const LogitRequest> requests, int64_t first, int64_t last);
  bool is_small(int64_t rows, int64_t weight_elements) const;
  std::byte* page(int64_t layer, int64_t page) {
    return cache_.data() + layer * layer_bytes_ + page * s_.page_elements * element_;
  }

  const DecoderConfig config_;
  const DecoderSizes s_;
  const kernels::KernelTable& k_;
  WorkerPool& pool_;
  const int64_t element_;      // bytes
  const int64_t layer_bytes_;  // of the cache
  MemoryBlock cache_;          // [layer][page][kv head][keys, values]
  RopeRows rope_;
  Rows x_, normed_, qkv_, q_, attended_, act_, logits_;
  std::optional<ExpertPass> experts_;
  const int64_t blocks_;  // of logits per row
  std::vector<kernels::BlockStats> stats_;

  std::vector<TokenSlice> slices_;  // of the pass
  std::vector<RowPlace> places_;
  std::vector<AttendTask> tasks_;
  int64_t rows_ = 0;
  std::vector<std::vector<float>> scratch_;  // per thread, attention scores

  std::unique_ptr<PackedWeights> front_;
  std::mutex back_mutex_;
  std::unique_ptr<PackedWeights> back_;  // packed and waiting for swap(); guarded by back_mutex_
};

void PackedDecoder::prepare(const StateDict& weights) {
  auto block = std::make_unique<PackedWeights>(config_, k_.bf16);
  block->pack(weights, pool_.threads());
  const std::lock_guard lock(back_mutex_);
  back_ = std::move(block);
}

bool PackedDecoder::swap() {
  const std::lock_guard lock(back_mutex_);
  if (!back_) return false;
  // The old weights' memory goes back to the system: kept for the next ones it would double what an actor holds.
  front_ = std::move(back_);
  return true;
}

void PackedDecoder::replace(const StateDict& weights) {
  front_->pack(weights, pool_.threads());
  const std::lock_guard lock(back_mutex_);
  back_.reset();
}

void PackedDecoder::copy_page(int32_t from, int32_t to) {
  for (int64_t layer = 0; layer < config_.num_layers; ++layer)
    std::memcpy(page(layer, to), page(layer, from), static_cast<size_t>(s_.page_elements * element_));
}

// ---- a pass ---------------------------------------------------------------------------------------------------------

void PackedDecoder::plan_attention(const TokenSlice& slice, int64_t row, bool split_heads) {
  const int64_t group = s_.num_heads / s_.num_kv_heads, n = static_cast<int64_t>(slice.tokens.size());
  const int64_t heads = split_heads ? 1 : group;
  for (int64_t kv = 0; kv < s_.num_kv_heads; ++kv)
    for (int64_t first = 0; first < n; first += kAttendTokens)
      for (int64_t h = 0; h < group; h += heads)
        tasks_.push_back({&slice, row + first, first, std::min(kAttendTokens, n - first), kv, h, heads});
}

void PackedDecoder::plan(std::span<const TokenSlice> slices) {
  slices_.assign(slices.begin(), slices.end());
  places_.clear();
  tasks_.clear();
  int64_t last = 0;
  for (const TokenSlice& s : slices_) last = std::max(last, s.start + static_cast<int64_t>(s.tokens.size()) - 1);
  rope_.begin_pass(last);
  // Few tasks leave threads without work: then each query head is one. A row's result does not depend on it.
  const bool split_heads = static_cast<int64_t>(slices_.size()) * s_.num_kv_heads < 4 * pool_.threads();
  for (const TokenSlice& s : slices_) {
    const auto n = static_cast<int64_t>(s.tokens.size());
    const RopeRows::Rows turns = rope_.rows(s.start, n, s.sequence_length);
    plan_attention(s, static_cast<int64_t>(places_.size()), split_heads);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t position = s.start + i, half = s_.head_dim / 2;
      places_.push_back({s.tokens[static_cast<size_t>(i)], s.pages[position / kPageTokens],
                         static_cast<int32_t>(position % kPageTokens), turns.cos + i * half, turns.sin + i * half});
    }
  }
  rows_ = static_cast<int64_t>(places_.size());
  for (auto& scratch : scratch_) {
    const auto want = static_cast<size_t>(4 * round_up(last + 1, 16));
    if (scratch.size() < want) scratch.resize(2 * want);
  }
}

// Work of a few microseconds is done sooner by one thread than shared out.
bool PackedDecoder::is_small(int64_t rows, int64_t weight_elements) const {
  constexpr int64_t kBytes = 1 << 20, kProducts = 8 << 20;
  return weight_elements * element_ < kBytes && rows * weight_elements < kProducts;
}

void PackedDecoder::forward(std::span<const TokenSlice> slices) {
  plan(slices);
  const int64_t per_layer = experts_ ? kPhasesPerExpertLayer : kPhasesPerLayer;
  pool_.run(1 + per_layer * config_.num_layers, is_small(rows_, weight_bytes() / element_),
            [this](int thread) { walk(thread); });
}

void PackedDecoder::walk(int thread) {
  using kernels::Epilogue;
  int64_t phase = 0;
  const auto rows = [&](auto&& work) { pool_.phase(phase++, rows_, pool_.grain(rows_, 1), work); };
  const auto multiply = [&](const PackedLinear& w, const Rows& x, Epilogue epilogue, const Rows& out) {
    const kernels::GemmCall call{.x = x.at(0),
                                 .x_stride = x.cols,
                                 .rows = rows_,
                                 .w = front_->data(w),
                                 .k = w.k,
                                 .bias = w.bias.empty() ? nullptr : w.bias.data(),
                                 .epilogue = epilogue,
                                 .out = out.at(0),
                                 .out_stride = out.cols};
    pool_.phase(phase++, w.num_panels, pool_.grain(w.num_panels, 1),
                [&](int64_t first, int64_t last) { k_.gemm(call, first, last); });
  };
  rows([&](int64_t first, int64_t last) { embed(first, last); });
  for (int64_t i = 0; i < config_.num_layers; ++i) {
    const PackedLayer& layer = front_->layers()[static_cast<size_t>(i)];
    rows([&](int64_t first, int64_t last) { normalise(layer.attention_norm, first, last); });
    multiply(layer.qkv, normed_, Epilogue::kStore, qkv_);
    rows([&](int64_t first, int64_t last) { place(i, first, last); });
    pool_.phase(phase++, static_cast<int64_t>(tasks_.size()), 1, [&](int64_t task, int64_t) {
      attend_task(tasks_[static_cast<size_t>(task)], i, scratch_[static_cast<size_t>(thread)].data());
    });
    multiply(layer.o, attended_, Epilogue::kAdd, x_);
    rows([&](int64_t first, int64_t last) { normalise(layer.mlp_norm, first, last); });
    if (!experts_) {
      const auto& [gate_up, down] = layer.feed_forwards[0];
      multiply(gate_up, normed_, Epilogue::kSwiGlu, act_);
      multiply(down, act_, Epilogue::kAdd, x_);
      continue;
    }
    pool_.phase(phase++, 1, 1, [&](int64_t, int64_t) { experts_->route(*front_, layer, normed_, rows_); });
    rows([&](int64_t first, int64_t last) { experts_->gather(normed_, first, last); });
    const auto blocks = [&](const PackedLinear& w, auto&& work) {
      const int64_t panels = w.num_panels * experts_->num_blocks();
      pool_.phase(phase++, panels, pool_.grain(panels, 1), work);
    };
    blocks(layer.feed_forwards[0].gate_up,
           [&](int64_t first, int64_t last) { experts_->gate_up(*front_, layer, first, last); });
    blocks(layer.feed_forwards[0].down,
           [&](int64_t first, int64_t last) { experts_->down(*front_, layer, first, last); });
    rows([&](int64_t first, int64_t last) { experts_->combine(x_, first, last); });
  }
}

void PackedDecoder::embed(int64_t first, int64_t last) {
  const auto* table = static_cast<const std::byte*>(front_->embeddings());
  for (int64_t row = first; row < last; ++row) {
    const int64_t token = places_[static_cast<size_t>(row)].token;
    float* x = x_.floats(row);
    if (!table) {
      k_.unpack_row(front_->data(front_->head()), s_.hidden_padded, token, x);
    } else if (const std::byte* from = table + token * s_.hidden_padded * element_; k_.bf16) {
      const auto* bits = reinterpret_cast<const uint16_t*>(from);
      for (int64_t i = 0; i < s_.hidden_padded; ++i) {
        const uint32_t word = static_cast<uint32_t>(bits[i]) << 16;
        std::memcpy(x + i, &word, 4);
      }
    } else {
      std::memcpy(x, from, static_cast<size_t>(s_.hidden_padded * 4));
    }
  }
}

void PackedDecoder::normalise(const std::vector<float>& weight, int64_t first, int64_t last) {
  for (int64_t row = first; row < last; ++row) {
    k_.rms_norm(x_.floats(row), weight.data(), s_.hidden_padded, s_.hidden, static_cast<float>(config_.rms_norm_eps),
                normed_.at(row));
  }
}

void PackedDecoder::place(int64_t layer, int64_t first, int64_t last) {
  const PackedLayer& weights = front_->layers()[static_cast<size_t>(layer)];
  for (int64_t row = first; row < last; ++row) {
    const RowPlace& where = places_[static_cast<size_t>(row)];
    k_.place_qkv({.qkv = qkv_.floats(row),
                  .num_heads = s_.num_heads,
                  .num_kv_heads = s_.num_kv_heads,
                  .head_dim = s_.head_dim,
                  .head_dim_padded = s_.head_dim_padded,
                  .q_norm = weights.q_norm.empty() ? nullptr : weights.q_norm.data(),
                  .k_norm = weights.k_norm.empty() ? nullptr : weights.k_norm.data(),
                  .norm_eps = static_cast<float>(config_.rms_norm_eps),
                  .cos = where.cos,
                  .sin = where.sin,
                  .q_out = q_.at(row),
                  .page = page(layer, where.page),
                  .slot = where.slot});
  }
}

void PackedDecoder::attend_task(const AttendTask& task, int64_t layer, float* scratch) {
  const int64_t group = s_.num_heads / s_.num_kv_heads, d = s_.head_dim_padded;
  const int64_t head = (task.kv_head * group + task.first_head) * d * element_;
  k_.attend({.q = q_.at(task.row) + head,
             .out = attended_.at(task.row) + head,
             .token_stride = s_.attention_width,
             .num_tokens = task.count,
             .num_heads = task.num_heads,
             .head_dim_padded = d,
             .first_position = task.slice->start + task.first,
             .pages = task.slice->pages,
             .cache = page(layer, 0) + task.kv_head * 2 * kPageTokens * d * element_,
             .page_stride = s_.page_elements,
             .scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(s_.head_dim))),
             .scratch = scratch});
}

// ---- logits ---------------------------------------------------------------------------------------------------------

void PackedDecoder::compute_logits(std::span<const LogitRequest> requests) {
  const auto n = static_cast<int64_t>(requests.size());
  pool_.run(2, is_small(n, s_.vocab * s_.hidden), [&](int) {
    pool_.phase(0, n, pool_.grain(n, 1),
                [&](int64_t first, int64_t last) { normalise_requested(requests, first, last); });
    pool_.phase(1, blocks_, 1, [&](int64_t first, int64_t last) { logit_blocks(requests, first, last); });
  });
}

void PackedDecoder::normalise_requested(std::span<const LogitRequest> requests, int64_t first, int64_t last) {
  for (int64_t i = first; i < last; ++i) {
    k_.rms_norm(x_.floats(requests[static_cast<size_t>(i)].row), front_->final_norm().data(), s_.hidden_padded,
                s_.hidden, static_cast<float>(config_.rms_norm_eps), normed_.at(i));
  }
}

// A block of logits of all rows and, while it is in the cache, what the sampler needs of it.
void PackedDecoder::logit_blocks(std::span<const LogitRequest> requests, int64_t first_block, int64_t last_block) {
  const auto n = static_cast<int64_t>(requests.size());
  const PackedLinear& w = front_->head();
  const kernels::GemmCall call{.x = normed_.at(0),
                               .x_stride = normed_.cols,
                               .rows = n,
                               .w = front_->data(w),
                               .k = w.k,
                               .out = logits_.at(0),
                               .out_stride = logits_.cols};
  constexpr int64_t kPanels = kernels::kLogitBlock / kPanelCols;
  for (int64_t b = first_block; b < last_block; ++b) {
    k_.gemm(call, b * kPanels, std::min((b + 1) * kPanels, w.num_panels));
    const int64_t first = b * kernels::kLogitBlock, count = std::min(kernels::kLogitBlock, s_.vocab - first);
    const int64_t padded = round_up(count, 16);
    for (int64_t i = 0; i < n; ++i) {
      float* logits = logits_.floats(i) + first;
      std::fill(logits + count, logits + padded, -std::numeric_limits<float>::infinity());
      stats_[static_cast<size_t>(i * blocks_ + b)] =
          k_.logit_stats(logits, padded, requests[static_cast<size_t>(i)].inverse_temperature);
    }
  }
}

}  // namespace

std::unique_ptr<CachedDecoder> make_packed_decoder(const CachedDecoderOptions& options,
                                                   const kernels::KernelTable& kernels, WorkerPool& pool) {
  return std::make_unique<PackedDecoder>(options, kernels, pool);
}

}  // namespace troupe
