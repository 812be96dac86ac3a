#include "core/generate/packed_weights.hpp"

#include <atomic>
#include <cstring>
#include <stdexcept>
#include <thread>

#include "core/generate/named_weights.hpp"
#include "core/generate/pack_panel.hpp"
#include "core/models/parameter_shapes.hpp"

namespace troupe {
namespace {

using kernels::kPanelCols;

// A matrix on its way into panels: where the row of each output column lies.
struct Job {
  std::vector<const std::byte*> rows;  // [32 * num_panels]; nullptr: zeros
  bool bf16 = false;
  int64_t k = 0, group = 0, group_padded = 0;
  int64_t k_padded = 0;
  std::byte* out = nullptr;
  bool as_rows = false;  // embeddings: rows copied, no panels
};

const std::byte* row_of(const at::Tensor& w, int64_t row) {
  return static_cast<const std::byte*>(w.const_data_ptr()) + row * w.size(1) * static_cast<int64_t>(w.element_size());
}

// Output columns of `w`, its rows' groups of `group` laid `group_padded` apart, from column `column` on.
void add_rows(Job& job, const at::Tensor& w, int64_t column, int64_t group, int64_t group_padded) {
  for (int64_t r = 0; r < w.size(0); ++r) {
    job.rows[static_cast<size_t>(column + r / group * group_padded + r % group)] = row_of(w, r);
  }
}

std::vector<float> padded(const at::Tensor& values, int64_t n, int64_t group, int64_t group_padded) {
  std::vector<float> out(static_cast<size_t>(n), 0.0f);
  const at::Tensor floats = values.to(at::kFloat).contiguous();
  const float* from = floats.const_data_ptr<float>();
  for (int64_t i = 0; i < floats.numel(); ++i) out[static_cast<size_t>(i / group * group_padded + i % group)] = from[i];
  return out;
}

std::vector<float> padded(const at::Tensor& values, int64_t n) {
  return padded(values, n, values.numel(), n);
}

size_t panel_bytes(const Job& job, bool bf16) {
  return static_cast<size_t>(kPanelCols * job.k_padded * (bf16 ? 2 : 4));
}

// Makes one panel at `out`. Rows of an `as_rows` job that are not there are left alone.
void run_job(const Job& job, int64_t panel, bool bf16, std::byte* out) {
  const int64_t size = bf16 ? 2 : 4;
  if (job.as_rows) {
    for (int64_t c = 0; c < kPanelCols; ++c, out += job.k_padded * size) {
      const std::byte* row = job.rows[static_cast<size_t>(panel * kPanelCols + c)];
      if (row) pack_row(row, job.bf16, job.k, job.k_padded, bf16, out);
    }
    return;
  }
  PanelSource source{.rows = {}, .bf16 = job.bf16, .k = job.k, .group = job.group, .group_padded = job.group_padded};
  for (int64_t c = 0; c < kPanelCols; ++c) source.rows[c] = job.rows[static_cast<size_t>(panel * kPanelCols + c)];
  pack_panel(source, job.k_padded, bf16, out);
}

// Every panel of every job, shared out among threads.
template <class Each>
void for_each_panel(const std::vector<Job>& jobs, int threads, Each each) {
  struct Piece {
    const Job* job;
    int64_t panel;
  };
  std::vector<Piece> pieces;
  for (const Job& job : jobs)
    for (int64_t p = 0; p < static_cast<int64_t>(job.rows.size()) / kPanelCols; ++p) pieces.push_back({&job, p});
  constexpr size_t kTake = 8;  // pieces taken at once
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t first; (first = next.fetch_add(kTake)) < pieces.size();) {
      for (size_t i = first; i < std::min(first + kTake, pieces.size()); ++i) each(*pieces[i].job, pieces[i].panel);
    }
  };
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) others.emplace_back(work);
  work();
  for (std::thread& t : others) t.join();
}

}  // namespace

// Collects the jobs of all matrices; keeps the tensors it had to make contiguous alive.
class PackedWeights::Collector {
 public:
  Collector(const DecoderSizes& sizes, std::byte* block) : s_(sizes), block_(block) {}

  void qkv(const LayerWeights& w, PackedLinear& to) {
    Job& job = begin(w.q, to, s_.hidden, s_.hidden_padded);
    const int64_t d = s_.head_dim_padded, keys = s_.num_heads * d, values = keys + s_.num_kv_heads * d;
    add_rows(job, w.q, 0, s_.head_dim, d);
    add_rows(job, w.k, keys, s_.head_dim, d);
    add_rows(job, w.v, values, s_.head_dim, d);
    if (!w.q_bias.defined()) return;
    const int64_t n = kPanelCols * to.num_panels;
    to.bias = padded(w.q_bias, n, s_.head_dim, d);
    const auto more = [&](const at::Tensor& bias, int64_t first) {
      const std::vector<float> part = padded(bias, s_.num_kv_heads * d, s_.head_dim, d);
      std::copy(part.begin(), part.end(), to.bias.begin() + first);
    };
    more(w.k_bias, keys);
    more(w.v_bias, values);
  }
  void o(const LayerWeights& w, PackedLinear& to) {
    Job& job = begin(w.o, to, s_.head_dim, s_.head_dim_padded);
    add_rows(job, w.o, 0, w.o.size(0), w.o.size(0));
    if (w.o_bias.defined()) to.bias = padded(w.o_bias, kPanelCols * to.num_panels);
  }
  void router(const at::Tensor& w, PackedLinear& to) {
    Job& job = begin(w, to, s_.hidden, s_.hidden_padded);
    add_rows(job, w, 0, w.size(0), w.size(0));
  }
  void gate_up(const FeedForwardWeights& w, PackedLinear& to) {
    Job& job = begin(w.gate, to, s_.hidden, s_.hidden_padded);
    add_rows(job, w.gate, 0, 16, kPanelCols);
    add_rows(job, w.up, 16, 16, kPanelCols);
    if (!w.gate_bias.defined()) return;
    const int64_t n = kPanelCols * to.num_panels;
    to.bias = padded(w.gate_bias, n, 16, kPanelCols);
    const std::vector<float> up = padded(w.up_bias, n, 16, kPanelCols);
    for (size_t i = 0; i + 16 < up.size(); ++i)
      if (i % kPanelCols < 16) to.bias[i + 16] = up[i];
  }
  void down(const FeedForwardWeights& w, PackedLinear& to) {
    Job& job = begin(w.down, to, s_.intermediate, s_.intermediate_padded);
    add_rows(job, w.down, 0, w.down.size(0), w.down.size(0));
    if (w.down_bias.defined()) to.bias = padded(w.down_bias, kPanelCols * to.num_panels);
  }
  void head(const at::Tensor& w, PackedLinear& to) {
    Job& job = begin(w, to, s_.hidden, s_.hidden_padded);
    add_rows(job, w, 0, w.size(0), w.size(0));
  }
  void embeddings(const at::Tensor& w, std::byte* out) {
    Job& job = jobs_.emplace_back();
    job.rows.assign(static_cast<size_t>(round_up(w.size(0), kPanelCols)), nullptr);
    fill(job, w, s_.hidden, s_.hidden_padded);
    add_rows(job, w, 0, w.size(0), w.size(0));
    job.k_padded = s_.hidden_padded;
    job.out = out;
    job.as_rows = true;
  }
  const std::vector<Job>& jobs() const { return jobs_; }

 private:
  Job& begin(const at::Tensor& w, const PackedLinear& to, int64_t group, int64_t group_padded) {
    Job& job = jobs_.emplace_back();
    job.rows.assign(static_cast<size_t>(kPanelCols * to.num_panels), nullptr);
    fill(job, w, group, group_padded);
    job.k_padded = to.k;
    job.out = block_ + to.offset;
    return job;
  }
  static void fill(Job& job, const at::Tensor& w, int64_t group, int64_t group_padded) {
    job.bf16 = w.scalar_type() == at::kBFloat16;
    job.k = w.size(1);
    // One group needs no gaps: the row's rest is zero anyway.
    job.group = group == w.size(1) ? group_padded : group;
    job.group_padded = group_padded;
  }

  const DecoderSizes& s_;
  std::byte* block_;
  std::vector<Job> jobs_;
};

PackedWeights::PackedWeights(const DecoderConfig& config, bool bf16) : config_(config), sizes_(config), bf16_(bf16) {
  const DecoderSizes& s = sizes_;
  packed_.layers.resize(static_cast<size_t>(config.num_layers));
  for (PackedLayer& layer : packed_.layers) {
    layer.qkv = place(s.qkv_width, s.hidden_padded);
    layer.o = place(s.hidden_padded, s.attention_width);
    if (config.moe.experts > 0) layer.router = place(round_up(config.moe.experts, kPanelCols), s.hidden_padded);
    layer.feed_forwards.resize(feed_forward_prefixes(config.moe).size());
    for (size_t j = 0; j < layer.feed_forwards.size(); ++j) {
      const size_t before = used_bytes_;
      layer.feed_forwards[j].gate_up = place(2 * round_up(s.intermediate, 16), s.hidden_padded);
      layer.feed_forwards[j].down = place(s.hidden_padded, s.intermediate_padded);
      if (static_cast<int64_t>(j) < config.moe.experts - config.moe.per_token) idle_bytes_ += used_bytes_ - before;
    }
  }
  packed_.head = place(s.vocab_padded, s.hidden_padded);
  embeddings_offset_ = used_bytes_;
  if (!config.tie_embeddings) used_bytes_ += static_cast<size_t>(s.vocab_padded * s.hidden_padded * (bf16 ? 2 : 4));
  // Kernels fetch a little ahead of what they read.
  block_ = MemoryBlock(used_bytes_ + 8192);
}

PackedLinear PackedWeights::place(int64_t n, int64_t k) {
  PackedLinear linear{.offset = used_bytes_, .k = k, .num_panels = n / kPanelCols, .bias = {}};
  used_bytes_ += static_cast<size_t>(n * k * (bf16_ ? 2 : 4));
  return linear;
}

// Fills the vectors of `to`, which lies as packed_ does, and gives the jobs of its panels.
PackedWeights::Collector PackedWeights::collect(const NamedWeights& named, PackedLayers& to_all) const {
  Collector collector(sizes_, block_.data());
  for (size_t i = 0; i < to_all.layers.size(); ++i) {
    const LayerWeights& from = named.layers[i];
    PackedLayer& to = to_all.layers[i];
    to.attention_norm = padded(from.attention_norm, sizes_.hidden_padded);
    to.mlp_norm = padded(from.mlp_norm, sizes_.hidden_padded);
    if (config_.qk_norm) {
      to.q_norm = padded(from.q_norm, sizes_.head_dim_padded);
      to.k_norm = padded(from.k_norm, sizes_.head_dim_padded);
    }
    collector.qkv(from, to.qkv);
    collector.o(from, to.o);
    if (from.router.defined()) collector.router(from.router, to.router);
    for (size_t j = 0; j < to.feed_forwards.size(); ++j) {
      collector.gate_up(from.feed_forwards[j], to.feed_forwards[j].gate_up);
      collector.down(from.feed_forwards[j], to.feed_forwards[j].down);
    }
  }
  to_all.final_norm = padded(named.final_norm, sizes_.hidden_padded);
  collector.head(named.head, to_all.head);
  if (!config_.tie_embeddings) collector.embeddings(named.embeddings, block_.data() + embeddings_offset_);
  return collector;
}

void PackedWeights::pack(const StateDict& weights, int threads) {
  const NamedWeights named(config_, weights);
  const Collector collector = collect(named, packed_);
  for_each_panel(collector.jobs(), threads, [&](const Job& job, int64_t panel) {
    run_job(job, panel, bf16_, job.out + static_cast<size_t>(panel) * panel_bytes(job, bf16_));
  });
}

bool PackedWeights::holds(const StateDict& weights, int threads) const {
  const NamedWeights named(config_, weights);
  PackedLayers expected = packed_;
  const Collector collector = collect(named, expected);
  std::atomic<bool> same{expected == packed_};
  for_each_panel(collector.jobs(), threads, [&](const Job& job, int64_t panel) {
    if (!same) return;
    const size_t bytes = panel_bytes(job, bf16_);
    const std::byte* held = job.out + static_cast<size_t>(panel) * bytes;
    thread_local MemoryBlock scratch;
    if (scratch.bytes() < bytes) scratch = MemoryBlock(bytes);
    if (job.as_rows) std::memset(scratch.data(), 0, bytes);  // the rows that are not there
    run_job(job, panel, bf16_, scratch.data());
    if (std::memcmp(scratch.data(), held, bytes) != 0) same = false;
  });
  return same;
}

}  // namespace troupe
