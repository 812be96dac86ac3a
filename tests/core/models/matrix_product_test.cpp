// Products of every size and layout against float64, and that a row's bits are its own.
#include "core/models/matrix_product.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cstring>

#include "core/models/kernels/tile_product.hpp"

namespace troupe {
namespace {

struct Sizes {
  int64_t m, n, k;
};
constexpr Sizes kSizes[] = {{1, 32, 32},    {5, 64, 33},     {31, 33, 64},   {32, 32, 512},   {70, 95, 513},
                            {100, 200, 99}, {257, 300, 700}, {64, 48, 1200}, {4110, 4130, 40}};

// Mean of |error| over the mean of |x| |w|, in float64.
double error_of(const at::Tensor& got, const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.to(at::kDouble), w = b.to(at::kDouble);
  return (got.to(at::kDouble) - at::mm(x, w)).abs().mean().item<double>() /
         at::mm(x.abs(), w.abs()).mean().item<double>();
}

class EachType : public testing::TestWithParam<at::ScalarType> {
 protected:
  at::Tensor random(int64_t rows, int64_t columns) const { return at::randn({rows, columns}).to(GetParam()); }
  // A part of a wider matrix: rows are not neighbours.
  at::Tensor part(int64_t rows, int64_t columns) const { return random(rows, columns + 7).narrow(1, 3, columns); }
  bool wide() const { return GetParam() == at::kFloat; }
};

TEST_P(EachType, ProductsEqualFloat64) {
  at::manual_seed(1);
  const double limit = wide() ? 3e-7 : 2e-3;
  for (const auto& [m, n, k] : kSizes) {
    const at::Tensor x = part(m, k), w = part(n, k), v = part(k, n), a = part(k, m);
    at::Tensor out = at::empty({m, n}, GetParam()), logits = at::empty({m, n}), sum = at::ones({m, n});
    product_of_rows(x, w, out);
    EXPECT_LT(error_of(out, x, w.t()), limit) << m << " " << n << " " << k;
    product(x, v, out);
    EXPECT_LT(error_of(out, x, v), limit) << m << " " << n << " " << k;
    wide_product(x.contiguous(), w.contiguous(), logits);
    EXPECT_LT(error_of(logits, x, w.t()), 3e-7) << m << " " << n << " " << k;
    if (m < 32) continue;
    add_product(sum, a, v);
    EXPECT_LT(error_of(sum - 1, a.t(), v), wide() || tiles::kernels() ? 1e-6 : limit) << m << " " << n << " " << k;
  }
}

TEST(MatrixProduct, ARowIsItsOwn) {
  if (!tiles::kernels()) GTEST_SKIP() << "no tile unit here: the library's products promise no such thing";
  at::manual_seed(2);
  const at::Tensor x = at::randn({200, 700}), w = at::randn({96, 700});
  at::Tensor whole = at::empty({200, 96});
  product_of_rows(x, w, whole);
  for (const auto& [first, count] : {std::pair<int64_t, int64_t>{0, 1}, {199, 1}, {33, 70}, {64, 32}}) {
    at::Tensor few = at::empty({count, 96});
    product_of_rows(x.narrow(0, first, count), w, few);
    EXPECT_TRUE(at::equal(few, whole.narrow(0, first, count))) << first;
  }
}

TEST(MatrixProduct, ThreadsDoNotChangeBits) {
  if (!tiles::kernels()) GTEST_SKIP() << "no tile unit here: the library's products promise no such thing";
  at::manual_seed(4);
  const int threads = at::get_num_threads();
  for (const auto& [m, n, k] : kSizes) {
    const at::Tensor x = at::randn({m, k}), w = at::randn({n, k});
    at::Tensor one = at::empty({m, n}), many = at::empty({m, n});
    at::set_num_threads(1);
    product_of_rows(x, w, one);
    at::set_num_threads(5);
    product_of_rows(x, w, many);
    EXPECT_TRUE(at::equal(one, many)) << m << " " << n << " " << k;
  }
  at::set_num_threads(threads);
}

// Whatever the bits of a NaN are.
TEST(MatrixProduct, WhatIsNoNumberStaysNone) {
  for (const uint32_t bits : {0x7FC00000U, 0xFFC00000U, 0x7FFFFFFFU, 0xFFFFFFFFU, 0x7F800001U, 0x7F800000U}) {
    const at::Tensor x = at::ones({64, 64}), w = at::ones({64, 64});
    std::memcpy(x.mutable_data_ptr<float>() + 5 * 64 + 7, &bits, sizeof(bits));
    at::Tensor out = at::empty({64, 64});
    product_of_rows(x, w, out);
    EXPECT_FALSE(at::isfinite(out[5]).any().item<bool>()) << std::hex << bits;
    EXPECT_EQ(at::isfinite(out).sum().item<int64_t>(), 63 * 64) << std::hex << bits;
  }
}

INSTANTIATE_TEST_SUITE_P(Products, EachType, testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& info) { return info.param == at::kFloat ? "float32" : "bfloat16"; });

// Six products of thirds are a float32 product: no further from the truth than the library's.
TEST(TileProduct, Float32IsAsExactAsTheLibrarys) {
  if (!tiles::kernels()) GTEST_SKIP() << "no tile unit here";
  at::manual_seed(3);
  for (const double scale : {1e-12, 1.0, 1e12}) {
    const at::Tensor x = at::randn({300, 1000}) * scale, w = at::randn({200, 1000}) * at::randn({200, 1}).exp();
    at::Tensor ours = at::empty({300, 200}), librarys = at::empty({300, 200});
    product_of_rows(x, w, ours);
    at::mm_out(librarys, x, w.t());
    const double error = error_of(ours, x, w.t()), reference = error_of(librarys, x, w.t());
    RecordProperty("error", std::to_string(error * 1e9));
    RecordProperty("librarys_error", std::to_string(reference * 1e9));
    std::printf("mean error, of the mean |x||w|: %.3g, the library's %.3g\n", error, reference);
    EXPECT_LT(error, 1.5 * reference);
  }
}

}  // namespace
}  // namespace troupe
