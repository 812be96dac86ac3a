// The row-wise inner loops of training on the CPU: norms, activations, softmax, the optimizer. One source
// (rows_*.inl) compiled for several instruction sets, chosen once at run time; no tensor library here.
//
// All functions work on one row (or one flat piece) and are pure loops: callers split rows over threads. T is float or
// Bf16 (bits of a bfloat16); arithmetic is float32, results rounded to nearest even. The same call gives the same bits
// on the same instruction set.
#pragma once

#include <cstdint>

namespace troupe::rows {

struct Bf16 {
  uint16_t bits;
};

struct AdamWStep {
  float learning_rate, beta1, beta2, eps;
  float decay;            // 1 - learning_rate * weight_decay
  float step_size;        // learning_rate / (1 - beta1^t)
  float root_correction;  // 1 / sqrt(1 - beta2^t)
  float gradient_scale;
};

struct RowStatistics {
  float logprob, log_sum, entropy;  // log_sum: log sum exp(logit / temperature)
};

template <class T>
struct Typed {
  // RMSNorm (Zhang & Sennrich 2019) after the residual sum: residual += delta (when given);
  // normalised = residual / rms(residual); y = normalised * weight. Returns 1 / rms. `normalised` may be null.
  float (*add_norm)(float* residual, const T* delta, const T* weight, float eps, int64_t n, T* normalised, T* y);
  // y = x * weight: the norm's output again from what was kept.
  void (*scale)(const T* x, const T* weight, int64_t n, T* y);
  // dresidual += d loss / d residual; copy = T(dresidual); dweight += dy * normalised (when given).
  void (*norm_backward)(const T* dy, const T* normalised, const T* weight, float reciprocal_rms, int64_t n,
                        float* dresidual, T* copy, float* dweight);

  // y = weight * silu(gate) * up.
  void (*swiglu)(const T* gate, const T* up, float weight, int64_t n, T* y);
  // Reads d loss / d y from `y`, leaves y itself there, and overwrites gate and up with their gradients. Gives back
  // d loss / d weight.
  float (*swiglu_backward)(T* gate, T* up, float weight, T* y, int64_t n);

  // One head's query or key: optional RMSNorm over the head (weight may be null), then rotation by cos and sin [half].
  void (*rotate)(const T* x, const T* norm_weight, float eps, const float* cos, const float* sin, int64_t half, T* y);
  // dx = d loss / d x from dy (float32, with respect to the rotated head); dnorm_weight += (when norm_weight is given).
  void (*rotate_backward)(const float* dy, const T* x, const T* norm_weight, float eps, const float* cos,
                          const float* sin, int64_t half, T* dx, float* dnorm_weight);

  // Scores lie in panels: element c at scores[c / width * stride + c % width]. Writes exp(scale * (s - max)) of the
  // first `count` ones in the same geometry, zeros up to the end of their last panel. Gives back the sum of these and
  // log sum exp(scale * s).
  void (*softmax_panels)(const float* scores, int64_t stride, int64_t width, int64_t count, float scale, T* probs,
                         float* sum, float* log_sum);
  // Of a block of scores lying [key][query]: probs = exp(scale * s - log_sum[query]);
  // dscores = probs * (dprobs - delta[query]) * scale, both rounded to T; `packed` is dscores in multiply's layout of a
  // right operand. On the diagonal block a key sees queries at or after it only. (See attention.cpp.)
  void (*attention_backward)(const float* scores, const float* dprobs, const float* log_sum, const float* delta,
                             float scale, int64_t block, bool diagonal, T* probs, T* dscores, T* packed);
  // Right operands of a block product. float: row-major [k][n]; Bf16: pairs of rows interleaved, [k / 2][n][2].
  void (*pack)(const T* x, int64_t stride, int64_t k, int64_t n, T* packed);             // x is [k][n]
  void (*pack_transposed)(const T* x, int64_t stride, int64_t k, int64_t n, T* packed);  // x is [n][k]
  void (*transpose)(const T* x, int64_t stride, int64_t rows, int64_t columns, T* y);    // y [columns][rows]
  // y = T(x * factor); dot = sum x * y.
  void (*store)(const float* x, float factor, int64_t n, T* y);
  float (*dot)(const T* x, const T* y, int64_t n);

  // x [n] float32: x += y.
  void (*accumulate)(float* x, const T* y, int64_t n);

  // Gradient with respect to one row of logits: of gradient_logprob * logprob + gradient_entropy * entropy. May
  // overwrite the logits (T float).
  void (*logit_gradient)(const float* logits, int64_t n, float inverse_temperature, int64_t target,
                         RowStatistics statistics, float gradient_logprob, float gradient_entropy, T* gradient);
};

struct Kernels {
  Typed<float> f32;
  Typed<Bf16> bf16;
  RowStatistics (*logit_statistics)(const float* logits, int64_t n, float inverse_temperature, int64_t target);
  double (*sum_of_squares)(const float* x, int64_t n);
  // Zeroes g; `copy` may be null.
  void (*adamw)(float* w, float* g, float* m, float* v, Bf16* copy, int64_t n, const AdamWStep& step);
  const char* instruction_set;

  template <class T>
  const Typed<T>& typed() const;
};

template <>
inline const Typed<float>& Kernels::typed<float>() const {
  return f32;
}
template <>
inline const Typed<Bf16>& Kernels::typed<Bf16>() const {
  return bf16;
}

// The best this machine can run.
const Kernels& kernels();

}  // namespace troupe::rows
