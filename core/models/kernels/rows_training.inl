// Token log-probabilities and the optimizer.

inline RowStatistics logit_statistics(const float* logits, int64_t n, float inverse_temperature, int64_t target) {
  float largest = logits[0];
#pragma omp simd reduction(max : largest)
  for (int64_t i = 0; i < n; ++i) largest = logits[i] > largest ? logits[i] : largest;
  // Sums over a whole vocabulary: short float32 runs, added up in float64.
  constexpr int64_t kRun = 1024;
  double sum = 0, weighted = 0;
  for (int64_t begin = 0; begin < n; begin += kRun) {
    const int64_t end = begin + kRun < n ? begin + kRun : n;
    float run = 0, run_weighted = 0;
#pragma omp simd reduction(+ : run, run_weighted)
    for (int64_t i = begin; i < end; ++i) {
      const float z = (logits[i] - largest) * inverse_temperature;
      const float p = exponential(z);
      run += p;
      run_weighted += p > 0.0f ? p * z : 0.0f;  // a forbidden token has z = -infinity
    }
    sum += static_cast<double>(run);
    weighted += static_cast<double>(run_weighted);
  }
  const double log_sum = __builtin_log(sum);
  const double shift = static_cast<double>(largest) * static_cast<double>(inverse_temperature);
  const double z = static_cast<double>((logits[target] - largest) * inverse_temperature);
  return {static_cast<float>(z - log_sum), static_cast<float>(log_sum + shift),
          static_cast<float>(log_sum - weighted / sum)};
}

template <class T>
void logit_gradient(const float* logits, int64_t n, float inverse_temperature, int64_t target, RowStatistics statistics,
                    float gradient_logprob, float gradient_entropy, T* gradient) {
  const float g = gradient_logprob * inverse_temperature, h = gradient_entropy * inverse_temperature;
  // A forbidden token has z = -infinity; its share p z of the entropy is 0.
  const float z_target = logits[target] * inverse_temperature - statistics.log_sum;
  const float p_target = exponential(z_target);
  const float surprise_target = p_target > 0.0f ? z_target + statistics.entropy : 0.0f;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float z = logits[i] * inverse_temperature - statistics.log_sum;
    const float p = exponential(z);
    const float surprise = p > 0.0f ? z + statistics.entropy : 0.0f;
    gradient[i] = round_to<T>(-p * (g + h * surprise));
  }
  gradient[target] = round_to<T>(g * (1.0f - p_target) - h * p_target * surprise_target);
}

inline double sum_of_squares(const float* x, int64_t n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return sum;
}

inline void adamw(float* w, float* g, float* m, float* v, Bf16* copy, int64_t n, const AdamWStep& step) {
  const AdamWStep s = step;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float gradient = g[i] * s.gradient_scale;
    const float first = m[i] + (gradient - m[i]) * (1.0f - s.beta1);
    const float second = v[i] * s.beta2 + gradient * gradient * (1.0f - s.beta2);
    const float weight = w[i] * s.decay - s.step_size * first / (__builtin_sqrtf(second) * s.root_correction + s.eps);
    m[i] = first;
    v[i] = second;
    w[i] = weight;
    g[i] = 0.0f;
  }
  if (!copy) return;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) copy[i] = round_to<Bf16>(w[i]);
}
