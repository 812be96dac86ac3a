#include "core/models/block_attention.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/native/CPUBlas.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <new>

#include "core/models/kernels/rows.hpp"

// Legend: L tokens of a sequence in n blocks of b (the last padded with zeros), d = head_dim.
// A unit of work is a sequence and one key-value head with the G query heads that share it: it alone writes its rows,
// so any thread may take any unit and the bits stay the same. Every product has one of three shapes (b x b x d, b x d x
// b, d x b x b), so few kernels are generated, whatever lengths come.

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

struct Unit {
  int64_t begin, end, kv_head;
  int64_t block, blocks;
};

Unit unit_of(const AttentionInput& input, int64_t index) {
  const int64_t b = index / input.shape.num_kv_heads;
  Unit unit{input.cu_seqlens[b], input.cu_seqlens[b + 1], index % input.shape.num_kv_heads, 0, 0};
  unit.block = block_of(unit.end - unit.begin);
  unit.blocks = (unit.end - unit.begin + unit.block - 1) / unit.block;
  return unit;
}

// Runs work(unit, index) for every unit, threads taking the next one as they get free.
template <class Work>
void for_each_unit(const AttentionInput& input, bool packed_products, const Work& work) {
  const int64_t units = (static_cast<int64_t>(input.cu_seqlens.size()) - 1) * input.shape.num_kv_heads;
  const int64_t threads = std::min<int64_t>(units, at::get_num_threads());
  std::atomic<int64_t> next{0};
  at::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    for (int64_t i = next++; i < units; i = next++) work(unit_of(input, i), i);
    cpublas::brgemm_release(packed_products);
  });
}

template <class T>
void forward_unit(const Operands<T>& in, const Unit& unit, T* out, float* log_sum) {
  const int64_t b = unit.block, n = unit.blocks, d = in.d;
  scratch.begin(2 * Scratch::padded<T>(n * b * d) + Scratch::padded<T>(b * d) + Scratch::padded<float>(n * b * b) +
                Scratch::padded<T>(n * b * b) + Scratch::padded<float>(b * d));
  T *keys = scratch.take<T>(n * b * d), *values = scratch.take<T>(n * b * d), *block = scratch.take<T>(b * d);
  float* scores = scratch.take<float>(n * b * b);
  T* probs = scratch.take<T>(n * b * b);
  float* sums = scratch.take<float>(b * d);
  for (int64_t j = 0; j < n; ++j) {
    in.load(unit.begin + j * b, unit.end, b, in.heads + unit.kv_head, block);
    in.row.pack_transposed(block, d, d, b, keys + j * b * d);
    in.load(unit.begin + j * b, unit.end, b, in.heads + in.kv_heads + unit.kv_head, block);
    in.row.pack(block, d, b, d, values + j * b * d);
  }
  for (int64_t head = unit.kv_head * in.group; head < (unit.kv_head + 1) * in.group; ++head)
    for (int64_t i = 0; i < n; ++i) {
      const int64_t first = unit.begin + i * b, count = std::min(b, unit.end - first);
      in.load(first, unit.end, b, head, block);
      for (int64_t j = 0; j <= i; ++j) multiply(b, b, d, false, block, keys + j * b * d, scores + j * b * b);
      float total[64];
      for (int64_t r = 0; r < count; ++r) {
        float log_total;
        in.row.softmax_panels(scores + r * b, b * b, b, i * b + r + 1, in.scale, probs + r * b, &total[r], &log_total);
        if (log_sum) log_sum[head * in.tokens + first + r] = log_total;
      }
      for (int64_t j = 0; j <= i; ++j) multiply(b, d, b, j > 0, probs + j * b * b, values + j * b * d, sums);
      for (int64_t r = 0; r < count; ++r)
        in.row.store(sums + r * d, 1.0f / total[r], d, out + ((first + r) * in.heads + head) * d);
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
    std::memset(dkeys, 0, sizeof(float) * static_cast<size_t>(n * b * d));
    std::memset(dvalues, 0, sizeof(float) * static_cast<size_t>(n * b * d));
  }
};

template <class T>
void load_queries(const Operands<T>& in, const Gradients<T>& g, const Unit& unit, int64_t head, int64_t first,
                  BackwardBuffers<T>& m) {
  const int64_t b = unit.block, d = in.d, width = in.heads * d;
  in.load(first, unit.end, b, head, m.block);
  in.row.pack(m.block, d, b, d, m.query);
  in.row.pack_transposed(m.block, d, d, b, m.query_t);
  for (int64_t r = 0; r < b; ++r) {
    const int64_t t = first + r;
    T* destination = m.block + r * d;
    if (t < unit.end) {
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

template <class T>
void backward_block(const Operands<T>& in, int64_t b, int64_t i, BackwardBuffers<T>& m) {
  const int64_t d = in.d;
  for (int64_t j = 0; j <= i; ++j) {
    const int64_t at = j * b * d;
    multiply(b, b, d, false, m.keys + at, m.query_t, m.scores);
    multiply(b, b, d, false, m.values + at, m.dout_t, m.dprobs);
    in.row.attention_backward(m.scores, m.dprobs, m.log_sum, m.delta, in.scale, b, i == j, m.probs, m.dscores,
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

template <class T>
void backward_unit(const Operands<T>& in, const Gradients<T>& g, const Unit& unit, int64_t index) {
  const int64_t b = unit.block, n = unit.blocks, d = in.d;
  BackwardBuffers<T> m(n, b, d);
  float* dnorm = g.dnorms ? g.dnorms + index * 2 * d : nullptr;
  const int64_t key_head = in.heads + unit.kv_head, value_head = key_head + in.kv_heads;
  for (int64_t j = 0; j < n; ++j) {
    in.load(unit.begin + j * b, unit.end, b, key_head, m.keys + j * b * d);
    in.row.transpose(m.keys + j * b * d, d, b, d, m.keys_transposed + j * b * d);
    in.load(unit.begin + j * b, unit.end, b, value_head, m.values + j * b * d);
  }
  const rows::Typed<float>& wide = rows::kernels().f32;
  for (int64_t head = unit.kv_head * in.group; head < (unit.kv_head + 1) * in.group; ++head)
    for (int64_t i = 0; i < n; ++i) {
      const int64_t first = unit.begin + i * b;
      load_queries(in, g, unit, head, first, m);
      backward_block(in, b, i, m);
      wide.transpose(m.dquery, b, d, b, m.dquery_rows);
      store_rotated(in, g, first, std::min(first + b, unit.end), head, m.dquery_rows, dnorm);
    }
  store_rotated(in, g, unit.begin, unit.end, key_head, m.dkeys, dnorm ? dnorm + d : nullptr);
  for (int64_t t = unit.begin; t < unit.end; ++t)
    in.row.store(m.dvalues + (t - unit.begin) * d, 1.0f, d, g.dqkv + t * in.stride + value_head * d);
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
  const int64_t units = (static_cast<int64_t>(input.cu_seqlens.size()) - 1) * in.kv_heads;
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
