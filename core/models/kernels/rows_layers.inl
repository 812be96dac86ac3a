// Norms, activations, rotation.

template <class T>
float add_norm(float* residual, const T* delta, const T* weight, float eps, int64_t n, T* normalised, T* y) {
  if (delta) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) residual[i] += load(delta[i]);
  }
  // Summed in a loop of its own, so that the bits are the same with and without a delta.
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += residual[i] * residual[i];
  const float reciprocal = 1.0f / __builtin_sqrtf(sum / static_cast<float>(n) + eps);
  // Rounded before the weight, as transformers does: so scale() gives the same y again.
  if (normalised) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      const T x = round_to<T>(residual[i] * reciprocal);
      normalised[i] = x;
      y[i] = round_to<T>(load(x) * load(weight[i]));
    }
  } else {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) y[i] = round_to<T>(load(round_to<T>(residual[i] * reciprocal)) * load(weight[i]));
  }
  return reciprocal;
}

template <class T>
void scale(const T* x, const T* weight, int64_t n, T* y) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] = round_to<T>(load(x[i]) * load(weight[i]));
}

// With g = dy * weight and x^ = normalised: d residual = (g - x^ mean(g x^)) / rms.
template <class T>
void norm_backward(const T* dy, const T* normalised, const T* weight, float reciprocal_rms, int64_t n, float* dresidual,
                   T* copy, float* dweight) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += load(dy[i]) * load(weight[i]) * load(normalised[i]);
  const float mean = sum / static_cast<float>(n);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float d = dresidual[i] + reciprocal_rms * (load(dy[i]) * load(weight[i]) - load(normalised[i]) * mean);
    dresidual[i] = d;
    copy[i] = round_to<T>(d);
  }
  if (!dweight) return;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) dweight[i] += load(dy[i]) * load(normalised[i]);
}

template <class T>
void swiglu(const T* gate, const T* up, float weight, int64_t n, T* y) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float g = load(gate[i]);
    y[i] = round_to<T>(weight * (g * sigmoid(g) * load(up[i])));
  }
}

// silu'(g) = s (1 + g (1 - s)), s = sigmoid(g).
template <class T>
float swiglu_backward(T* gate, T* up, float weight, T* y, int64_t n) {
  float dweight = 0;
#pragma omp simd reduction(+ : dweight)
  for (int64_t i = 0; i < n; ++i) {
    const float g = load(gate[i]), u = load(up[i]), dy = load(y[i]), d = weight * dy;
    const float s = sigmoid(g), silu = g * s, product = silu * u;
    dweight += dy * product;
    gate[i] = round_to<T>(d * u * s * (1.0f + g * (1.0f - s)));
    up[i] = round_to<T>(d * silu);
    y[i] = round_to<T>(weight * product);
  }
  return dweight;
}

template <class T>
inline float head_reciprocal_rms(const T* x, float eps, int64_t n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += load(x[i]) * load(x[i]);
  return 1.0f / __builtin_sqrtf(sum / static_cast<float>(n) + eps);
}

template <class T>
void rotate(const T* x, const T* norm_weight, float eps, const float* cos, const float* sin, int64_t half, T* y) {
  if (!norm_weight) {
#pragma omp simd
    for (int64_t i = 0; i < half; ++i) {
      const float a = load(x[i]), b = load(x[i + half]);
      y[i] = round_to<T>(a * cos[i] - b * sin[i]);
      y[i + half] = round_to<T>(b * cos[i] + a * sin[i]);
    }
    return;
  }
  const float reciprocal = head_reciprocal_rms(x, eps, 2 * half);
#pragma omp simd
  for (int64_t i = 0; i < half; ++i) {
    const float a = load(x[i]) * reciprocal * load(norm_weight[i]);
    const float b = load(x[i + half]) * reciprocal * load(norm_weight[i + half]);
    y[i] = round_to<T>(a * cos[i] - b * sin[i]);
    y[i + half] = round_to<T>(b * cos[i] + a * sin[i]);
  }
}

template <class T>
void rotate_backward(const float* dy, const T* x, const T* norm_weight, float eps, const float* cos, const float* sin,
                     int64_t half, T* dx, float* dnorm_weight) {
  if (!norm_weight) {
#pragma omp simd
    for (int64_t i = 0; i < half; ++i) {
      dx[i] = round_to<T>(dy[i] * cos[i] + dy[i + half] * sin[i]);
      dx[i + half] = round_to<T>(dy[i + half] * cos[i] - dy[i] * sin[i]);
    }
    return;
  }
  const float reciprocal = head_reciprocal_rms(x, eps, 2 * half);
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < half; ++i) {
    const float a = dy[i] * cos[i] + dy[i + half] * sin[i], b = dy[i + half] * cos[i] - dy[i] * sin[i];
    const float xa = load(x[i]) * reciprocal, xb = load(x[i + half]) * reciprocal;
    sum += a * load(norm_weight[i]) * xa + b * load(norm_weight[i + half]) * xb;
    dnorm_weight[i] += a * xa;
    dnorm_weight[i + half] += b * xb;
  }
  const float mean = sum / static_cast<float>(2 * half);
#pragma omp simd
  for (int64_t i = 0; i < half; ++i) {
    const float a = dy[i] * cos[i] + dy[i + half] * sin[i], b = dy[i + half] * cos[i] - dy[i] * sin[i];
    dx[i] = round_to<T>(reciprocal * (a * load(norm_weight[i]) - load(x[i]) * reciprocal * mean));
    dx[i + half] = round_to<T>(reciprocal * (b * load(norm_weight[i + half]) - load(x[i + half]) * reciprocal * mean));
  }
}

template <class T>
void store(const float* x, float factor, int64_t n, T* y) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] = round_to<T>(x[i] * factor);
}

template <class T>
float dot(const T* x, const T* y, int64_t n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += load(x[i]) * load(y[i]);
  return sum;
}

template <class T>
void accumulate(float* x, const T* y, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) x[i] += load(y[i]);
}
