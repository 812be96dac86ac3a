// Every instruction set's row kernels against plain double-precision formulas.
#include "core/models/kernels/rows.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <random>
#include <vector>

namespace troupe::rows {

extern const Kernels kernels_portable, kernels_avx2, kernels_avx512;

namespace {

constexpr int64_t kWidth = 77;  // no multiple of any vector

float value(float x) {
  return x;
}
float value(Bf16 x) {
  return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16);
}

template <class T>
std::vector<T> random_row(unsigned seed, double scale = 1.0) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal(0.0f, static_cast<float>(scale));
  std::vector<float> wide(kWidth);
  for (float& x : wide) x = normal(engine);
  if constexpr (sizeof(T) == sizeof(float)) {
    return wide;
  } else {
    std::vector<T> row(kWidth);
    kernels_portable.bf16.store(wide.data(), 1.0f, kWidth, row.data());
    return row;
  }
}

std::vector<const Kernels*> sets() {
  std::vector<const Kernels*> found = {&kernels_portable};
  if (__builtin_cpu_supports("x86-64-v3")) found.push_back(&kernels_avx2);
  if (__builtin_cpu_supports("x86-64-v4")) found.push_back(&kernels_avx512);
  return found;
}

template <class T>
constexpr double kTolerance = sizeof(T) == sizeof(float) ? 2e-6 : 5e-3;

template <class T>
void expect_near(const std::vector<T>& actual, const std::vector<double>& expected, const char* set) {
  for (size_t i = 0; i < expected.size(); ++i)
    EXPECT_NEAR(value(actual[i]), expected[i], kTolerance<T> * (1 + std::abs(expected[i]))) << set << " at " << i;
}

template <class T>
class RowKernels : public testing::Test {};
using Types = testing::Types<float, Bf16>;
TYPED_TEST_SUITE(RowKernels, Types);

TYPED_TEST(RowKernels, NormIsTheFormula) {
  for (const Kernels* set : sets()) {
    std::vector<float> residual = random_row<float>(1);
    const std::vector<TypeParam> delta = random_row<TypeParam>(2), weight = random_row<TypeParam>(3);
    std::vector<double> x(kWidth);
    double squares = 0;
    for (size_t i = 0; i < x.size(); ++i) x[i] = residual[i] + value(delta[i]), squares += x[i] * x[i];
    const double rms = std::sqrt(squares / kWidth + 1e-5);
    std::vector<double> expected(kWidth);
    for (size_t i = 0; i < x.size(); ++i) expected[i] = x[i] / rms * value(weight[i]);
    std::vector<TypeParam> y(kWidth);
    const float reciprocal = set->typed<TypeParam>().add_norm(residual.data(), delta.data(), weight.data(), 1e-5f,
                                                              kWidth, nullptr, y.data());
    EXPECT_NEAR(reciprocal, 1 / rms, 1e-6) << set->instruction_set;
    expect_near(y, expected, set->instruction_set);
    expect_near(residual, x, set->instruction_set);
  }
}

TYPED_TEST(RowKernels, SwigluAndItsGradientAreTheFormulas) {
  constexpr float kWeight = 0.75f;
  for (const Kernels* set : sets()) {
    std::vector<TypeParam> gate = random_row<TypeParam>(1, 4), up = random_row<TypeParam>(2),
                           dy = random_row<TypeParam>(3), y(kWidth);
    std::vector<double> expected(kWidth), dgate(kWidth), dup(kWidth);
    double dweight = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      const double g = value(gate[i]), u = value(up[i]), d = value(dy[i]), s = 1 / (1 + std::exp(-g));
      expected[i] = kWeight * g * s * u, dup[i] = kWeight * d * g * s;
      dgate[i] = kWeight * d * u * s * (1 + g * (1 - s)), dweight += d * g * s * u;
    }
    set->typed<TypeParam>().swiglu(gate.data(), up.data(), kWeight, kWidth, y.data());
    expect_near(y, expected, set->instruction_set);
    const float dw = set->typed<TypeParam>().swiglu_backward(gate.data(), up.data(), kWeight, dy.data(), kWidth);
    EXPECT_NEAR(dw, dweight, 1e-5 * (1 + std::abs(dweight))) << set->instruction_set;
    expect_near(gate, dgate, set->instruction_set);
    expect_near(up, dup, set->instruction_set);
    expect_near(dy, expected, set->instruction_set);
  }
}

TYPED_TEST(RowKernels, LogitStatisticsAndGradientAreTheFormulas) {
  constexpr float kInverse = 1.25f, kDLogprob = 0.7f, kDEntropy = -0.3f;
  constexpr int64_t kTarget = 5;
  for (const Kernels* set : sets()) {
    std::vector<float> logits = random_row<float>(1, 5);
    logits[9] = -INFINITY;  // a forbidden token
    double sum = 0, entropy = 0;
    for (float l : logits) sum += std::exp(static_cast<double>(l) * kInverse);
    const auto log_p = [&](size_t i) { return logits[i] * static_cast<double>(kInverse) - std::log(sum); };
    for (size_t i = 0; i < logits.size(); ++i)
      if (std::isfinite(logits[i])) entropy -= std::exp(log_p(i)) * log_p(i);
    const RowStatistics s = set->logit_statistics(logits.data(), kWidth, kInverse, kTarget);
    EXPECT_NEAR(s.logprob, log_p(kTarget), 1e-5) << set->instruction_set;
    EXPECT_NEAR(s.log_sum, std::log(sum), 1e-5) << set->instruction_set;
    EXPECT_NEAR(s.entropy, entropy, 1e-5) << set->instruction_set;
    std::vector<double> expected(kWidth);
    for (size_t i = 0; i < logits.size(); ++i) {
      const double p = std::isfinite(logits[i]) ? std::exp(log_p(i)) : 0.0;
      expected[i] = kInverse * (kDLogprob * ((i == kTarget) - p) - (p > 0 ? kDEntropy * p * (log_p(i) + entropy) : 0));
    }
    std::vector<TypeParam> gradient(kWidth);
    set->typed<TypeParam>().logit_gradient(logits.data(), kWidth, kInverse, kTarget, s, kDLogprob, kDEntropy,
                                           gradient.data());
    expect_near(gradient, expected, set->instruction_set);
  }
}

TYPED_TEST(RowKernels, PackedOperandsHoldTheirElements) {
  constexpr int64_t kRows = 6, kColumns = 10, kStride = 12;
  for (const Kernels* set : sets()) {
    const std::vector<TypeParam> x = random_row<TypeParam>(1);
    std::vector<TypeParam> packed(kRows * kColumns), transposed(kRows * kColumns);
    set->typed<TypeParam>().pack(x.data(), kStride, kRows, kColumns, packed.data());
    set->typed<TypeParam>().pack_transposed(x.data(), kStride, kColumns, kRows, transposed.data());
    const auto at = [](const std::vector<TypeParam>& p, int64_t k, int64_t n, int64_t width) {
      const bool pairs = sizeof(TypeParam) == 2;
      return value(p[static_cast<size_t>(pairs ? k / 2 * 2 * width + n * 2 + k % 2 : k * width + n)]);
    };
    for (int64_t r = 0; r < kRows; ++r)
      for (int64_t c = 0; c < kColumns; ++c) {
        const float expected = value(x[static_cast<size_t>(r * kStride + c)]);
        EXPECT_EQ(at(packed, r, c, kColumns), expected) << set->instruction_set;
        EXPECT_EQ(at(transposed, c, r, kRows), expected) << set->instruction_set;
      }
  }
}

}  // namespace
}  // namespace troupe::rows
