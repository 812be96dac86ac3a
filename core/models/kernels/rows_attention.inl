// Softmax of attention scores and the layouts of block products.

template <class T>
void softmax_panels(const float* scores, int64_t stride, int64_t width, int64_t count, float scale, T* probs,
                    float* sum, float* log_sum) {
  float largest = scores[0];
  for (int64_t done = 0; done < count; done += width) {
    const float* panel = scores + done / width * stride;
    const int64_t n = count - done < width ? count - done : width;
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < n; ++i) largest = panel[i] > largest ? panel[i] : largest;
  }
  float total = 0;
  for (int64_t done = 0; done < count; done += width) {
    const float* panel = scores + done / width * stride;
    T* out = probs + done / width * stride;
    const int64_t n = count - done < width ? count - done : width;
#pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < n; ++i) {
      const float p = exponential((panel[i] - largest) * scale);
      total += p;
      out[i] = round_to<T>(p);
    }
    for (int64_t i = n; i < width; ++i) out[i] = round_to<T>(0.0f);
  }
  *sum = total;
  *log_sum = largest * scale + __builtin_logf(total);
}

inline void attention_gradient(float score, float dprob, float log_sum, float delta, float scale, float& p, float& ds) {
  p = exponential(score * scale - log_sum);
  ds = p * (dprob - delta) * scale;
}

inline void attention_backward_row(const float* scores, const float* dprobs, const float* log_sum, const float* delta,
                                   float scale, int64_t begin, int64_t block, float* probs, float* dscores) {
  for (int64_t q = 0; q < begin; ++q) probs[q] = dscores[q] = 0.0f;
#pragma omp simd
  for (int64_t q = begin; q < block; ++q)
    attention_gradient(scores[q], dprobs[q], log_sum[q], delta[q], scale, probs[q], dscores[q]);
}

inline void attention_backward(const float* scores, const float* dprobs, const float* log_sum, const float* delta,
                               float scale, int64_t block, bool diagonal, float* probs, float* dscores, float* packed) {
  for (int64_t k = 0; k < block; ++k) {
    attention_backward_row(scores + k * block, dprobs + k * block, log_sum, delta, scale, diagonal ? k : 0, block,
                           probs + k * block, dscores + k * block);
    __builtin_memcpy(packed + k * block, dscores + k * block, sizeof(float) * static_cast<uint64_t>(block));
  }
}

// Two keys at a time: their gradients interleaved are one row of the packed operand.
inline void attention_backward(const float* scores, const float* dprobs, const float* log_sum, const float* delta,
                               float scale, int64_t block, bool diagonal, Bf16* probs, Bf16* dscores, Bf16* packed) {
  constexpr int64_t kLargestBlock = 64;
  float p[2][kLargestBlock], ds[2][kLargestBlock];
  for (int64_t k = 0; k < block; k += 2) {
    for (int64_t odd = 0; odd < 2; ++odd) {
      const int64_t row = (k + odd) * block;
      attention_backward_row(scores + row, dprobs + row, log_sum, delta, scale, diagonal ? k + odd : 0, block, p[odd],
                             ds[odd]);
#pragma omp simd
      for (int64_t q = 0; q < block; ++q) probs[row + q] = round_to<Bf16>(p[odd][q]);
#pragma omp simd
      for (int64_t q = 0; q < block; ++q) dscores[row + q] = round_to<Bf16>(ds[odd][q]);
    }
    const Bf16 *even = dscores + k * block, *odd = even + block;
    uint32_t* pairs = reinterpret_cast<uint32_t*>(packed + k * block);
#pragma omp simd
    for (int64_t q = 0; q < block; ++q)
      pairs[q] = static_cast<uint32_t>(even[q].bits) | static_cast<uint32_t>(odd[q].bits) << 16;
  }
}

inline void pack(const float* x, int64_t stride, int64_t k, int64_t n, float* packed) {
  for (int64_t i = 0; i < k; ++i)
    __builtin_memcpy(packed + i * n, x + i * stride, sizeof(float) * static_cast<uint64_t>(n));
}

inline void pack(const Bf16* x, int64_t stride, int64_t k, int64_t n, Bf16* packed) {
  for (int64_t i = 0; i < k; i += 2) {
    const Bf16 *even = x + i * stride, *odd = even + stride;
    uint32_t* pairs = reinterpret_cast<uint32_t*>(packed + i * n);
#pragma omp simd
    for (int64_t j = 0; j < n; ++j)
      pairs[j] = static_cast<uint32_t>(even[j].bits) | static_cast<uint32_t>(odd[j].bits) << 16;
  }
}

// In tiles, so that reads and writes both stay within a few cache lines.
template <class T>
inline void transpose_tiles(const T* x, int64_t stride, int64_t rows, int64_t columns, T* y) {
  constexpr int64_t kTile = 16;
  for (int64_t r = 0; r < rows; r += kTile)
    for (int64_t c = 0; c < columns; c += kTile) {
      const int64_t r_end = r + kTile < rows ? r + kTile : rows, c_end = c + kTile < columns ? c + kTile : columns;
      for (int64_t j = c; j < c_end; ++j)
        for (int64_t i = r; i < r_end; ++i) y[j * rows + i] = x[i * stride + j];
    }
}

template <class T>
void transpose(const T* x, int64_t stride, int64_t rows, int64_t columns, T* y) {
  transpose_tiles(x, stride, rows, columns, y);
}

inline void pack_transposed(const float* x, int64_t stride, int64_t k, int64_t n, float* packed) {
  transpose_tiles(x, stride, n, k, packed);
}

// Pairs of k lie side by side in x already: a transpose of 32-bit words.
inline void pack_transposed(const Bf16* x, int64_t stride, int64_t k, int64_t n, Bf16* packed) {
  transpose_tiles(reinterpret_cast<const uint32_t*>(x), stride / 2, n, k / 2, reinterpret_cast<uint32_t*>(packed));
}
