#include "core/models/block_attention.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/native/CPUBlas.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <vector>

#include "core/models/kernels/rows.hpp"

// Legend: L tokens of a sequence in n blocks of b (the last padded with zeros), d = head_dim.
// A unit of work is a sequence, those that continue it, and one key-value head with the G query heads that share it: it
// alone writes its rows, so any thread may take any unit and the bits stay the same. Every product has one of three
// shapes (b x b x d, b x d x b, d x b x b), so few kernels are generated, whatever lengths come.

namespace troupe {
namespace {

using rows::Bf16;
namespace cpublas = at::native::cpublas;

constexpr int64_t kShortSequence = 96;  // up to here blocks of 32 waste less than blocks of 64
int64_t block_of(int64_t length) {
  return length <= kShortSequence ? 32 : 64;
}

// C [m, n] (+)= A [m, k] B [k, n], B packed by the row kernels (n columns wide).
void multiply(int64_t m, int64_t n, int64_t k, bool add, const float* a, const float* b, float* c) {
  cpublas::brgemm(m, n, k, k, n, n, add, a, b, c, false);
}
void multiply(int64_t m, int64_t n, int64_t k, bool add, const Bf16* a, const Bf16* b, float* c) {
  cpublas::brgemm(m, n, k, k, n, n, add, reinterpret_cast<const at::BFloat16*>(a),
                  reinterpret_cast<const at::BFloat16*>(b), c, true);
}

// One thread's working memory, kept between calls.
class Scratch {
 public:
  void begin(size_t bytes) {
    if (bytes > capacity_) {
      memory_.reset(static_cast<std::byte*>(::operator new(bytes, kAlign)));
      capacity_ = bytes;
    }
    used_ = 0;
  }
  template <class E>
  E* take(int64_t count) {
    E* start = reinterpret_cast<E*>(memory_.get() + used_);
    used_ += padded<E>(count);
    return start;
  }
  template <class E>
  static size_t padded(int64_t count) {
    return (static_cast<size_t>(count) * sizeof(E) + 63) / 64 * 64;
  }

 private:
  static constexpr std::align_val_t kAlign{64};
  struct Free {
    void operator()(std::byte* p) const { ::operator delete(p, kAlign); }
  };
  std::unique_ptr<std::byte, Free> memory_;
  size_t capacity_ = 0, used_ = 0;
};
thread_local Scratch scratch;

template <class T>
struct Operands {
  const rows::Typed<T>& row;
  int64_t heads, kv_heads, group, d, tokens, stride;  // stride: elements of a row of qkv
  float scale, eps;
  const float *cos, *sin;
  const T *qkv, *query_norm, *key_norm;

  Operands(const AttentionInput& in, const HeadNorms& norms, const at::Tensor& x)
      : row(rows::kernels().typed<T>()),
        heads(in.shape.num_heads),
        kv_heads(in.shape.num_kv_heads),
        group(heads / kv_heads),
        d(in.shape.head_dim),
        tokens(x.size(0)),
        stride((heads + 2 * kv_heads) * d),
        scale(static_cast<float>(1.0 / std::sqrt(static_cast<double>(d)))),
        eps(static_cast<float>(in.shape.norm_eps)),
        cos(in.rope.cos.const_data_ptr<float>()),
        sin(in.rope.sin.const_data_ptr<float>()),
        qkv(static_cast<const T*>(x.const_data_ptr())),
        query_norm(norm(norms.query)),
        key_norm(norm(norms.key)) {}

  static const T* norm(const ParameterView& weight) {
    return weight.value.defined() ? static_cast<const T*>(weight.value.const_data_ptr()) : nullptr;
  }
  // Column `head` of token t: query heads first, then keys, then values.
  const T* at(int64_t t, int64_t head) const { return qkv + t * stride + head * d; }

  // Rows [first, first + b) of a head into y [b, d], zeros beyond `end`; rotated, or as they are (values).
  void load(int64_t first, int64_t end, int64_t b, int64_t head, T* y) const {
    for (int64_t r = 0; r < b; ++r, y += d) {
      const int64_t t = first + r;
      if (t >= end)
        std::memset(static_cast<void*>(y), 0, sizeof(T) * static_cast<size_t>(d));
      else if (head >= heads + kv_heads)
        std::memcpy(static_cast<void*>(y), at(t, head), sizeof(T) * static_cast<size_t>(d));
      else
        row.rotate(at(t, head), head < heads ? query_norm : key_norm, eps, cos + t * (d / 2), sin + t * (d / 2), d / 2,
                   y);
    }
  }
};

// Tokens [begin, end) in blocks of the unit's size.
struct Sequence {
  int64_t begin, end, blocks;
};

// A sequence that continues none, those that continue it, and one key-value head.
struct Unit {
  int64_t kv_head, block;
  Sequence root;
  std::vector<Sequence> more;
  int64_t most_blocks;  // of the root and one of those that continue it

  Sequence sequence(int64_t begin, int64_t end) const { return {begin, end, (end - begin + block - 1) / block}; }
};

// The sequences that continue none.
std::vector<int64_t> roots_of(const AttentionInput& input) {
  std::vector<int64_t> roots;
  for (size_t b = 0; b + 1 < input.cu_seqlens.size(); ++b)
    if (input.continues.empty() || input.continues[b] < 0) roots.push_back(static_cast<int64_t>(b));
  return roots;
}

Unit unit_of(const AttentionInput& input, int64_t root, int64_t kv_head) {
  const auto& bounds = input.cu_seqlens;
  const auto begin = [&](size_t b) { return static_cast<int64_t>(bounds[b]); };
  const auto first = static_cast<size_t>(root);
  size_t end = first + 1;  // those that continue the root follow it
  int64_t longest = 0;
  while (!input.continues.empty() && end + 1 < bounds.size() && input.continues[end] == root) {
    longest = std::max(longest, begin(end + 1) - begin(end));
    ++end;
  }
  Unit unit{kv_head, block_of(begin(first + 1) - begin(first) + longest), {}, {}, 0};
  unit.root = unit.sequence(begin(first), begin(first + 1));
  unit.most_blocks = unit.root.blocks;
  for (size_t b = first + 1; b < end; ++b) {
    unit.more.push_back(unit.sequence(begin(b), begin(b + 1)));
    unit.most_blocks = std::max(unit.most_blocks, unit.root.blocks + unit.more.back().blocks);
  }
  return unit;
}

// Runs work(unit, index) for every unit, threads taking the next one as they get free.
template <class Work>
void for_each_unit(const AttentionInput& input, bool packed_products, const Work& work) {
  const std::vector<int64_t> roots = roots_of(input);
  const int64_t kv_heads = input.shape.num_kv_heads, units = static_cast<int64_t>(roots.size()) * kv_heads;
  const int64_t threads = std::min<int64_t>(units, at::get_num_threads());
  std::atomic<int64_t> next{0};
  at::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    for (int64_t i = next++; i < units; i = next++)
      work(unit_of(input, roots[static_cast<size_t>(i / kv_heads)], i % kv_heads), i);
    cpublas::brgemm_release(packed_products);
  });
}

// A score that becomes probability 0.
constexpr float kMasked = -1e30f;

template <class T>
struct ForwardBuffers {
  T *keys, *values;  // n of [b, d], packed as right operands
  T* block;          // [b, d]
  float* scores;     // n of [b, b]
  T* probs;          // n of [b, b]
  float* sums;       // [b, d]

  ForwardBuffers(int64_t n, int64_t b, int64_t d) {
    using S = Scratch;
    scratch.begin(2 * S::padded<T>(n * b * d) + S::padded<T>(b * d) + S::padded<float>(n * b * b) +
                  S::padded<T>(n * b * b) + S::padded<float>(b * d));
    keys = scratch.take<T>(n * b * d), values = scratch.take<T>(n * b * d), block = scratch.take<T>(b * d);
    scores = scratch.take<float>(n * b * b);
    probs = scratch.take<T>(n * b * b);
    sums = scratch.take<float>(b * d);
  }
};

// Keys and values of a sequence into blocks `at`, at + 1, ...
template <class T>
void load_keys(const Operands<T>& in, const Unit& unit, const Sequence& s, int64_t at, ForwardBuffers<T>& m) {
  const int64_t b = unit.block, d = in.d;
  for (int64_t j = 0; j < s.blocks; ++j) {
    in.load(s.begin + j * b, s.end, b, in.heads + unit.kv_head, m.block);
    in.row.pack_transposed(m.block, d, d, b, m.keys + (at + j) * b * d);
    in.load(s.begin + j * b, s.end, b, in.heads + in.kv_heads + unit.kv_head, m.block);
    in.row.pack(m.block, d, b, d, m.values + (at + j) * b * d);
  }
}

// The queries of a sequence that has `before` blocks of the root's keys in front of its own.
template <class T>
void forward_queries(const Operands<T>& in, const Unit& unit, const Sequence& s, int64_t before, ForwardBuffers<T>& m,
                     T* out, float* log_sum) {
  const int64_t b = unit.block, d = in.d;
  const int64_t filled = before == 0 ? b : unit.root.end - unit.root.begin - (before - 1) * b;  // of the last before
  for (int64_t head = unit.kv_head * in.group; head < (unit.kv_head + 1) * in.group; ++head)
    for (int64_t i = 0; i < s.blocks; ++i) {
      const int64_t first = s.begin + i * b, count = std::min(b, s.end - first);
      in.load(first, s.end, b, head, m.block);
      for (int64_t j = 0; j <= before + i; ++j)
        multiply(b, b, d, false, m.block, m.keys + j * b * d, m.scores + j * b * b);
      for (int64_t r = 0; filled < b && r < count; ++r)
        std::fill_n(m.scores + (before - 1) * b * b + r * b + filled, b - filled, kMasked);
      float total[64];
      for (int64_t r = 0; r < count; ++r) {
        float log_total;
        in.row.softmax_panels(m.scores + r * b, b * b, b, (before + i) * b + r + 1, in.scale, m.probs + r * b,
                              &total[r], &log_total);
        if (log_sum) log_sum[head * in.tokens + first + r] = log_total;
      }
      for (int64_t j = 0; j <= before + i; ++j)
        multiply(b, d, b, j > 0, m.probs + j * b * b, m.values + j * b * d, m.sums);
      for (int64_t r = 0; r < count; ++r)
        in.row.store(m.sums + r * d, 1.0f / total[r], d, out + ((first + r) * in.heads + head) * d);
    }
}

template <class T>
void forward_unit(const Operands<T>& in, const Unit& unit, T* out, float* log_sum) {
  ForwardBuffers<T> m(unit.most_blocks, unit.block, in.d);
  load_keys(in, unit, unit.root, 0, m);
  forward_queries(in, unit, unit.root, 0, m, out, log_sum);
  for (const Sequence& s : unit.more) {
    load_keys(in, unit, s, unit.root.blocks, m);
    forward_queries(in, unit, s, unit.root.blocks, m, out, log_sum);
  }
}

template <class T>
struct Gradients {
  const T *out, *dout;   // [S, H * d]
  const float* log_sum;  // [H, S]
  T* dqkv;               // [S, (H + 2 KV) * d]
  float* dnorms;         // [units, 2, d] or null: partial gradients of the query and key norm
};

// Working memory of one unit's backward pass. Scores are computed transposed, [key][query]: then probabilities and
// their gradients are left operands of the keys' and values' gradients as they are.
template <class T>
struct BackwardBuffers {
  T *keys, *keys_transposed, *values;             // n of [b, d], [d, b], [b, d]
  float *dkeys, *dvalues;                         // n of [b, d]
  T *block, *query, *query_t, *dout, *dout_t;     // [b, d]; right operands of one block of queries
  float *scores, *dprobs, *dquery, *dquery_rows;  // [b, b], [b, b], [d, b], [b, d]
  T *probs, *dscores, *dscores_packed;            // [b, b]
  float *log_sum, *delta;                         // [b]

  BackwardBuffers(int64_t n, int64_t b, int64_t d) {
    using S = Scratch;
    scratch.begin(3 * S::padded<T>(n * b * d) + 2 * S::padded<float>(n * b * d) + 5 * S::padded<T>(b * d) +
                  2 * S::padded<float>(b * b) + 2 * S::padded<float>(b * d) + 3 * S::padded<T>(b * b) +
                  2 * S::padded<float>(b));
    for (T** p : {&keys, &keys_transposed, &values}) *p = scratch.take<T>(n * b * d);
    for (float** p : {&dkeys, &dvalues}) *p = scratch.take<float>(n * b * d);
    for (T** p : {&block, &query, &query_t, &dout, &dout_t}) *p = scratch.take<T>(b * d);
    for (float** p : {&scores, &dprobs}) *p = scratch.take<float>(b * b);
    for (float** p : {&dquery, &dquery_rows}) *p = scratch.take<float>(b * d);
    for (T** p : {&probs, &dscores, &dscores_packed}) *p = scratch.take<T>(b * b);
    for (float** p : {&log_sum, &delta}) *p = scratch.take<float>(b);
  }
};

template <class T>
void load_queries(const Operands<T>& in, const Gradients<T>& g, const Unit& unit, const Sequence& s, int64_t head,
                  int64_t first, BackwardBuffers<T>& m) {
  const int64_t b = unit.block, d = in.d, width = in.heads * d;
  in.load(first, s.end, b, head, m.block);
  in.row.pack(m.block, d, b, d, m.query);
  in.row.pack_transposed(m.block, d, d, b, m.query_t);
  for (int64_t r = 0; r < b; ++r) {
    const int64_t t = first + r;
    T* destination = m.block + r * d;
    if (t < s.end) {
      const int64_t at = t * width + head * d;
      std::memcpy(static_cast<void*>(destination), g.dout + at, sizeof(T) * static_cast<size_t>(d));
      m.delta[r] = in.row.dot(g.dout + at, g.out + at, d);
      m.log_sum[r] = g.log_sum[head * in.tokens + t];
    } else {  // an infinite sum makes the probabilities of a padded query 0
      std::memset(static_cast<void*>(destination), 0, sizeof(T) * static_cast<size_t>(d));
      m.delta[r] = 0;
      m.log_sum[r] = std::numeric_limits<float>::infinity();
    }
  }
  in.row.pack(m.block, d, b, d, m.dout);
  in.row.pack_transposed(m.block, d, d, b, m.dout_t);
}

// The block of queries in `m` against key blocks 0 .. last, the last of them on the diagonal. Of block `partly` only
// the first `filled` keys are there; the others would be harmless were it not for probabilities that overflow.
template <class T>
void backward_block(const Operands<T>& in, int64_t b, int64_t last, int64_t partly, int64_t filled,
                    BackwardBuffers<T>& m) {
  const int64_t d = in.d;
  for (int64_t j = 0; j <= last; ++j) {
    const int64_t at = j * b * d;
    multiply(b, b, d, false, m.keys + at, m.query_t, m.scores);
    multiply(b, b, d, false, m.values + at, m.dout_t, m.dprobs);
    if (j == partly) std::fill(m.scores + filled * b, m.scores + b * b, kMasked);
    in.row.attention_backward(m.scores, m.dprobs, m.log_sum, m.delta, in.scale, b, j == last, m.probs, m.dscores,
                              m.dscores_packed);
    multiply(b, d, b, true, m.probs, m.dout, m.dvalues + at);
    multiply(b, d, b, true, m.dscores, m.query, m.dkeys + at);
    multiply(d, b, b, j > 0, m.keys_transposed + at, m.dscores_packed, m.dquery);
  }
}

// dx of rows [first, end) of a head from the gradients of its rotated rows.
template <class T>
void store_rotated(const Operands<T>& in, const Gradients<T>& g, int64_t first, int64_t end, int64_t head,
                   const float* drows, float* dnorm) {
  const int64_t half = in.d / 2;
  const T* norm = head < in.heads ? in.query_norm : in.key_norm;
  for (int64_t t = first; t < end; ++t, drows += in.d)
    in.row.rotate_backward(drows, in.at(t, head), norm, in.eps, in.cos + t * half, in.sin + t * half, half,
                           g.dqkv + t * in.stride + head * in.d, dnorm);
}

// Keys and values of a sequence into blocks `at`, at + 1, ..., their gradients there at zero.
template <class T>
void load_keys(const Operands<T>& in, const Unit& unit, const Sequence& s, int64_t at, BackwardBuffers<T>& m) {
  const int64_t b = unit.block, d = in.d, key_head = in.heads + unit.kv_head;
  for (int64_t j = at; j < at + s.blocks; ++j) {
    const int64_t first = s.begin + (j - at) * b;
    in.load(first, s.end, b, key_head, m.keys + j * b * d);
    in.row.transpose(m.keys + j * b * d, d, b, d, m.keys_transposed + j * b * d);
    in.load(first, s.end, b, key_head + in.kv_heads, m.values + j * b * d);
  }
  std::fill_n(m.dkeys + at * b * d, s.blocks * b * d, 0.0f);
  std::fill_n(m.dvalues + at * b * d, s.blocks * b * d, 0.0f);
}

template <class T>
void store_keys(const Operands<T>& in, const Gradients<T>& g, const Unit& unit, const Sequence& s, int64_t at,
                const BackwardBuffers<T>& m, float* dnorm) {
  const int64_t b = unit.block, d = in.d, key_head = in.heads + unit.kv_head;
  store_rotated(in, g, s.begin, s.end, key_head, m.dkeys + at * b * d, dnorm ? dnorm + d : nullptr);
  const float* dvalues = m.dvalues + at * b * d;
  for (int64_t t = s.begin; t < s.end; ++t, dvalues += d)
    in.row.store(dvalues, 1.0f, d, g.dqkv + t * in.stride + (key_head + in.kv_heads) * d);
}

// Gradients of a sequence's queries, and its part of the gradients of the keys and values it sees.
template <class T>
void backward_queries(const Operands<T>& in, const Gradients<T>& g, const Unit& unit, const Sequence& s, int64_t before,
                      BackwardBuffers<T>& m, float* dnorm) {
  const int64_t b = unit.block, d = in.d;
  const int64_t filled = unit.root.end - unit.root.begin - (before - 1) * b;  // of block before - 1
  const rows::Typed<float>& wide = rows::kernels().f32;
  for (int64_t head = unit.kv_head * in.group; head < (unit.kv_head + 1) * in.group; ++head)
    for (int64_t i = 0; i < s.blocks; ++i) {
      const int64_t first = s.begin + i * b;
      load_queries(in, g, unit, s, head, first, m);
      backward_block(in, b, before + i, before - 1, filled, m);
      wide.transpose(m.dquery, b, d, b, m.dquery_rows);
      store_rotated(in, g, first, std::min(first + b, s.end), head, m.dquery_rows, dnorm);
    }
}

template <class T>
void backward_unit(const Operands<T>& in, const Gradients<T>& g, const Unit& unit, int64_t index) {
  BackwardBuffers<T> m(unit.most_blocks, unit.block, in.d);
  float* dnorm = g.dnorms ? g.dnorms + index * 2 * in.d : nullptr;
  load_keys(in, unit, unit.root, 0, m);
  backward_queries(in, g, unit, unit.root, 0, m, dnorm);
  for (const Sequence& s : unit.more) {
    load_keys(in, unit, s, unit.root.blocks, m);
    backward_queries(in, g, unit, s, unit.root.blocks, m, dnorm);
    store_keys(in, g, unit, s, unit.root.blocks, m, dnorm);
  }
  store_keys(in, g, unit, unit.root, 0, m, dnorm);
}

template <class T>
void forward(const AttentionInput& input, const HeadNorms& norms, const at::Tensor& qkv, at::Tensor& out,
             at::Tensor& log_sum) {
  const Operands<T> in(input, norms, qkv);
  T* result = static_cast<T*>(out.mutable_data_ptr());
  float* sums = log_sum.defined() ? log_sum.mutable_data_ptr<float>() : nullptr;
  for_each_unit(input, sizeof(T) == 2, [&](const Unit& unit, int64_t) { forward_unit(in, unit, result, sums); });
}

template <class T>
void backward(const AttentionInput& input, const HeadNorms& norms, const at::Tensor& qkv, const at::Tensor& out,
              const at::Tensor& log_sum, const at::Tensor& dout, at::Tensor& dqkv) {
  const Operands<T> in(input, norms, qkv);
  const int64_t units = static_cast<int64_t>(roots_of(input).size()) * in.kv_heads;
  at::Tensor dnorms;
  if (in.query_norm) dnorms = at::zeros({units, 2, in.d}, at::kFloat);
  const Gradients<T> g{static_cast<const T*>(out.const_data_ptr()), static_cast<const T*>(dout.const_data_ptr()),
                       log_sum.const_data_ptr<float>(), static_cast<T*>(dqkv.mutable_data_ptr()),
                       dnorms.defined() ? dnorms.mutable_data_ptr<float>() : nullptr};
  for_each_unit(input, sizeof(T) == 2, [&](const Unit& unit, int64_t index) { backward_unit(in, g, unit, index); });
  if (!dnorms.defined() || !norms.query.grad.defined()) return;
  const at::Tensor sum = dnorms.sum(0);
  at::Tensor query_grad = norms.query.grad, key_grad = norms.key.grad;
  query_grad.add_(sum[0]);
  key_grad.add_(sum[1]);
}

}  // namespace

void block_attention_forward(const AttentionInput& input, const HeadNorms& norms, const at::Tensor& qkv,
                             at::Tensor& out, at::Tensor& log_sum) {
  return qkv.scalar_type() == at::kFloat ? forward<float>(input, norms, qkv, out, log_sum)
                                         : forward<Bf16>(input, norms, qkv, out, log_sum);
}

void block_attention_backward(const AttentionInput& input, const HeadNorms& norms, const at::Tensor& qkv,
                              const at::Tensor& out, const at::Tensor& log_sum, const at::Tensor& dout,
                              at::Tensor& dqkv) {
  return qkv.scalar_type() == at::kFloat ? backward<float>(input, norms, qkv, out, log_sum, dout, dqkv)
                                         : backward<Bf16>(input, norms, qkv, out, log_sum, dout, dqkv);
}

}  // namespace troupe
