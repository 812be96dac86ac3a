// Every kernel table that this machine can run, against plain loops in double precision; and that a row's result does
// not depend on the rows beside it, to the bit.
#include "core/generate/kernels.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "core/generate/pack_panel.hpp"
#include "tests/core/generate/all_tables.hpp"

namespace troupe::kernels {
namespace {

uint16_t to_bits(float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, 4);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
float from_bits(uint16_t bits) {
  const uint32_t word = static_cast<uint32_t>(bits) << 16;
  float v;
  std::memcpy(&v, &word, 4);
  return v;
}

// Elements of either type behind one face.
struct Elements {
  Elements(int64_t n, bool bf16) : bf16(bf16), bytes(static_cast<size_t>(n * (bf16 ? 2 : 4)) + 4096) {}
  void* at(int64_t i) { return bytes.data() + i * (bf16 ? 2 : 4); }
  void set(int64_t i, float v) {
    if (bf16) {
      const uint16_t bits = to_bits(v);
      std::memcpy(at(i), &bits, 2);
    } else {
      std::memcpy(at(i), &v, 4);
    }
  }
  float get(int64_t i) {
    if (bf16) {
      uint16_t bits;
      std::memcpy(&bits, at(i), 2);
      return from_bits(bits);
    }
    float v;
    std::memcpy(&v, at(i), 4);
    return v;
  }
  void fill(std::mt19937& random, int64_t n) {
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < n; ++i) set(i, normal(random));
  }
  bool bf16;
  std::vector<std::byte> bytes;
};

class EachTable : public testing::TestWithParam<const KernelTable*> {
 protected:
  const KernelTable& k() const { return *GetParam(); }
  double element_error() const { return k().bf16 ? 0.01 : 1e-5; }
  std::mt19937 random_{5};
};

Elements packed(const Elements& rows, int64_t n, int64_t k, int64_t k_padded, bool bf16) {
  const int64_t panels = (n + 31) / 32;
  Elements out(panels * 32 * k_padded, bf16);
  for (int64_t p = 0; p < panels; ++p) {
    PanelSource source{.rows = {}, .bf16 = bf16, .k = k, .group = k_padded, .group_padded = k_padded};
    for (int64_t c = 0; c < 32; ++c) {
      const int64_t row = p * 32 + c;
      source.rows[c] = row < n ? rows.bytes.data() + row * k * (bf16 ? 2 : 4) : nullptr;
    }
    pack_panel(source, k_padded, bf16, static_cast<std::byte*>(out.at(p * 32 * k_padded)));
  }
  return out;
}

TEST_P(EachTable, GemmAddsUpEachElementWhateverTheNumberOfRows) {
  const bool bf16 = k().bf16;
  const int64_t n = 96, depth = 90, padded = 96, max_rows = 48;
  Elements w(n * depth, bf16), x(max_rows * padded, bf16);
  w.fill(random_, n * depth);
  x.fill(random_, max_rows * padded);
  const Elements panels = packed(w, n, depth, padded, bf16);
  std::vector<float> bias(n, 0.25f), first;
  for (int64_t rows : {1, 2, 3, 4, 7, 8, 11, 12, 13, 15, 16, 17, 25, 31, 32, 33, 40, 48}) {
    std::vector<float> out(static_cast<size_t>(max_rows * n), 1.0f);
    GemmCall call{.x = x.at(0),
                  .x_stride = padded,
                  .rows = rows,
                  .w = panels.bytes.data(),
                  .k = padded,
                  .bias = bias.data(),
                  .epilogue = Epilogue::kAdd,
                  .out = out.data(),
                  .out_stride = n};
    k().gemm(call, 0, 1);
    k().gemm(call, 1, 3);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < n; ++c) {
        double want = 1.25;
        for (int64_t i = 0; i < depth; ++i)
          want += static_cast<double>(x.get(r * padded + i)) * static_cast<double>(w.get(c * depth + i));
        ASSERT_NEAR(out[static_cast<size_t>(r * n + c)], want, 1e-4) << "rows " << rows << " row " << r << " col " << c;
      }
    }
    for (int64_t i = rows * n; i < max_rows * n; ++i) ASSERT_EQ(out[static_cast<size_t>(i)], 1.0f);
    if (first.empty()) first.assign(out.begin(), out.begin() + n);
    ASSERT_EQ(std::memcmp(first.data(), out.data(), static_cast<size_t>(n) * 4), 0) << rows << " rows change row 0";
  }
}

TEST_P(EachTable, GemmRowsAreTheSameBitsAtAnyPlace) {
  const bool bf16 = k().bf16;
  const int64_t n = 32, depth = 160, rows = 37;
  Elements w(n * depth, bf16), x(48 * depth, bf16);
  w.fill(random_, n * depth);
  x.fill(random_, depth);
  for (int64_t r = 1; r < 48; ++r) std::memcpy(x.at(r * depth), x.at(0), static_cast<size_t>(depth * (bf16 ? 2 : 4)));
  const Elements panels = packed(w, n, depth, depth, bf16);
  std::vector<float> out(static_cast<size_t>(48 * n));
  k().gemm({.x = x.at(0),
            .x_stride = depth,
            .rows = rows,
            .w = panels.bytes.data(),
            .k = depth,
            .out = out.data(),
            .out_stride = n},
           0, 1);
  for (int64_t r = 1; r < rows; ++r)
    ASSERT_EQ(std::memcmp(out.data(), out.data() + r * n, static_cast<size_t>(n) * 4), 0) << "row " << r;
}

TEST_P(EachTable, GemmFusesSwiGlu) {
  const bool bf16 = k().bf16;
  const int64_t depth = 64, rows = 19;
  Elements w(64 * depth, bf16), x(32 * depth, bf16), out(32 * 32, bf16);
  w.fill(random_, 64 * depth);
  x.fill(random_, 32 * depth);
  const Elements panels = packed(w, 64, depth, depth, bf16);
  k().gemm({.x = x.at(0),
            .x_stride = depth,
            .rows = rows,
            .w = panels.bytes.data(),
            .k = depth,
            .epilogue = Epilogue::kSwiGlu,
            .out = out.at(0),
            .out_stride = 32},
           0, 2);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < 32; ++c) {
      const int64_t column = c / 16 * 32 + c % 16;
      double gate = 0, up = 0;
      for (int64_t i = 0; i < depth; ++i) {
        gate += static_cast<double>(x.get(r * depth + i)) * w.get(column * depth + i);
        up += static_cast<double>(x.get(r * depth + i)) * w.get((column + 16) * depth + i);
      }
      const double want = gate / (1 + std::exp(-gate)) * up;
      // Each sum is off by its own rounding, which the other factor multiplies.
      ASSERT_NEAR(out.get(r * 32 + c), want, (1 + std::abs(gate)) * (1 + std::abs(up)) * element_error());
    }
  }
}

TEST_P(EachTable, RmsNormScalesToUnitMeanSquare) {
  const int64_t n = 96, true_n = 90;
  std::vector<float> x(96, 0.0f), weight(96, 0.0f);
  for (int64_t i = 0; i < true_n; ++i) {
    x[static_cast<size_t>(i)] = static_cast<float>(i % 7) - 2.5f;
    weight[static_cast<size_t>(i)] = 1.0f + 0.01f * static_cast<float>(i);
  }
  double squares = 0;
  for (float v : x) squares += static_cast<double>(v) * v;
  Elements out(n, k().bf16);
  k().rms_norm(x.data(), weight.data(), n, true_n, 1e-5f, out.at(0));
  for (int64_t i = 0; i < n; ++i) {
    const auto at = static_cast<size_t>(i);
    const double want = x[at] / std::sqrt(squares / true_n + 1e-5) * weight[at];
    ASSERT_NEAR(out.get(i), want, std::abs(want) * element_error() + 1e-9);
  }
}

TEST_P(EachTable, AttentionMixesTheValuesOfVisibleKeys) {
  const bool bf16 = k().bf16;
  const int64_t d = 80, heads = 3, tokens = 5, first_position = 30, keys = first_position + tokens;
  const int64_t page_elements = 2 * 16 * d, num_pages = 4;
  Elements cache(num_pages * page_elements, bf16), q(tokens * heads * d, bf16), out(tokens * heads * d, bf16);
  // What lies past the last key may be anything a number can be.
  for (int64_t i = 0; i < num_pages * page_elements; ++i) cache.set(i, NAN);
  const std::vector<int32_t> pages{2, 0, 3};
  std::vector<float> cos(40, 1.0f), sin(40, 0.0f), qkv(static_cast<size_t>(3 * d));
  std::vector<std::vector<float>> key_rows, value_rows;
  std::normal_distribution<float> normal;
  Elements unused(d, bf16);
  for (int64_t t = 0; t < keys; ++t) {
    for (float& v : qkv) v = from_bits(to_bits(normal(random_)));
    key_rows.emplace_back(qkv.begin() + d, qkv.begin() + 2 * d);
    value_rows.emplace_back(qkv.begin() + 2 * d, qkv.end());
    k().place_qkv({.qkv = qkv.data(),
                   .num_heads = 1,
                   .num_kv_heads = 1,
                   .head_dim = d,
                   .head_dim_padded = d,
                   .cos = cos.data(),
                   .sin = sin.data(),
                   .q_out = unused.at(0),
                   .page = cache.at(pages[static_cast<size_t>(t / 16)] * page_elements),
                   .slot = t % 16});
  }
  q.fill(random_, tokens * heads * d);
  std::vector<float> scratch(4 * 48);
  AttendCall call{.q = q.at(0),
                  .out = out.at(0),
                  .token_stride = heads * d,
                  .num_tokens = tokens,
                  .num_heads = heads,
                  .head_dim_padded = d,
                  .first_position = first_position,
                  .pages = pages.data(),
                  .cache = cache.at(0),
                  .page_stride = page_elements,
                  .scale = 0.11f,
                  .scratch = scratch.data()};
  k().attend(call);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t h = 0; h < heads; ++h) {
      std::vector<double> weights;
      double sum = 0;
      for (int64_t j = 0; j <= first_position + t; ++j) {
        double score = 0;
        for (int64_t i = 0; i < d; ++i)
          score += static_cast<double>(q.get((t * heads + h) * d + i)) *
                   key_rows[static_cast<size_t>(j)][static_cast<size_t>(i)];
        weights.push_back(std::exp(score * 0.11));
        sum += weights.back();
      }
      for (int64_t i = 0; i < d; ++i) {
        double want = 0;
        for (size_t j = 0; j < weights.size(); ++j) want += weights[j] / sum * value_rows[j][static_cast<size_t>(i)];
        ASSERT_NEAR(out.get((t * heads + h) * d + i), want, element_error()) << "token " << t << " head " << h;
      }
    }
  }
  // The same token alone, and one head alone: the same bits.
  Elements alone(tokens * heads * d, bf16);
  call.out = alone.at(0);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t h = 0; h < heads; ++h) {
      call.q = q.at((t * heads + h) * d);
      call.out = alone.at((t * heads + h) * d);
      call.num_tokens = call.num_heads = 1;
      call.first_position = first_position + t;
      k().attend(call);
    }
  }
  EXPECT_EQ(std::memcmp(alone.at(0), out.at(0), static_cast<size_t>(tokens * heads * d * (bf16 ? 2 : 4))), 0);
}

TEST_P(EachTable, PlacingNormalisesAndRotates) {
  const bool bf16 = k().bf16;
  const int64_t head_dim = 12, d = 16, half = 6;
  std::vector<float> qkv(3 * d, 0.0f), q_norm(d, 0.0f), k_norm(d, 0.0f), cos(half), sin(half);
  std::normal_distribution<float> normal;
  for (int64_t part = 0; part < 3; ++part)
    for (int64_t i = 0; i < head_dim; ++i) qkv[static_cast<size_t>(part * d + i)] = normal(random_);
  for (size_t i = 0; i < head_dim; ++i) q_norm[i] = 1.5f, k_norm[i] = 0.5f;
  for (size_t i = 0; i < half; ++i)
    cos[i] = std::cos(0.3f * static_cast<float>(i)), sin[i] = std::sin(0.3f * static_cast<float>(i));
  Elements page(2 * 16 * d, bf16), q(d, bf16);
  k().place_qkv({.qkv = qkv.data(),
                 .num_heads = 1,
                 .num_kv_heads = 1,
                 .head_dim = head_dim,
                 .head_dim_padded = d,
                 .q_norm = q_norm.data(),
                 .k_norm = k_norm.data(),
                 .norm_eps = 1e-6f,
                 .cos = cos.data(),
                 .sin = sin.data(),
                 .q_out = q.at(0),
                 .page = page.at(0),
                 .slot = 5});
  const int64_t step = bf16 ? 2 : 1;
  for (int64_t part = 0; part < 2; ++part) {
    const float* head = qkv.data() + part * d;
    double squares = 0;
    for (int64_t i = 0; i < head_dim; ++i) squares += static_cast<double>(head[i]) * head[i];
    const double scale = (part == 0 ? 1.5 : 0.5) / std::sqrt(squares / head_dim + 1e-6);
    for (int64_t i = 0; i < d; ++i) {
      double want = 0;
      if (i < half)
        want = scale * (head[i] * cos[static_cast<size_t>(i)] - head[i + half] * sin[static_cast<size_t>(i)]);
      else if (i < head_dim)
        want = scale *
               (head[i] * cos[static_cast<size_t>(i - half)] + head[i - half] * sin[static_cast<size_t>(i - half)]);
      const float got = part == 0 ? q.get(i) : page.get((i / step * 16 + 5) * step + i % step);
      ASSERT_NEAR(got, want, std::abs(want) * element_error() + 1e-6) << "part " << part << " dim " << i;
    }
  }
  for (int64_t i = 0; i < d; ++i)
    ASSERT_NEAR(page.get(16 * d + 5 * d + i), qkv[static_cast<size_t>(2 * d + i)], element_error());
}

TEST_P(EachTable, ExponentialsAreWithinTwoUnitsInTheLastPlace) {
  std::vector<float> x, out;
  for (float v = -100; v <= 0; v += 0.013f) x.push_back(v);
  x.resize(x.size() / 16 * 16);
  x.back() = -INFINITY;
  out.resize(x.size());
  k().exponentials(x.data(), static_cast<int64_t>(x.size()), 0.0f, 1.0f, out.data());
  for (size_t i = 0; i < x.size(); ++i) {
    const double want = x[i] < -87.33f ? 0.0 : std::exp(static_cast<double>(x[i]));
    ASSERT_NEAR(out[i], want, want * 2.4e-7) << x[i];
  }
}

TEST_P(EachTable, LogitStatsAgreeWithPlainSums) {
  std::vector<float> logits(512);
  std::normal_distribution<float> normal(0, 4);
  for (float& v : logits) v = normal(random_);
  for (size_t i = 500; i < 512; ++i) logits[i] = -INFINITY;
  const BlockStats stats = k().logit_stats(logits.data(), 512, 1.4f);
  const float max = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float v : logits) sum += std::exp((static_cast<double>(v) - max) * 1.4);
  EXPECT_EQ(stats.max, max);
  EXPECT_NEAR(stats.sum, sum, sum * 1e-6);
}

TEST_P(EachTable, UnpacksARowOfPackedWeights) {
  const bool bf16 = k().bf16;
  const int64_t n = 70, depth = 50, padded = 64;
  Elements w(n * depth, bf16);
  w.fill(random_, n * depth);
  const Elements panels = packed(w, n, depth, padded, bf16);
  std::vector<float> row(padded);
  for (int64_t token : {0, 1, 31, 32, 69}) {
    k().unpack_row(panels.bytes.data(), padded, token, row.data());
    for (int64_t i = 0; i < padded; ++i)
      ASSERT_EQ(row[static_cast<size_t>(i)], i < depth ? w.get(token * depth + i) : 0.0f);
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, EachTable, testing::ValuesIn(all_tables()), [](const auto& info) {
  return std::string(info.param->name) + (info.param->bf16 ? "_bfloat16" : "_float32");
});

TEST(PackPanel, ConvertsBetweenElementTypesAndSpreadsGroups) {
  // Two groups of 5 elements lie 16 apart.
  std::vector<float> row;
  for (int i = 0; i < 10; ++i) row.push_back(1.0f + 0.3f * static_cast<float>(i));
  PanelSource source{.rows = {}, .bf16 = false, .k = 10, .group = 5, .group_padded = 16};
  source.rows[3] = reinterpret_cast<const std::byte*>(row.data());
  std::vector<uint16_t> panel(32 * 32, 0xffff);
  pack_panel(source, 32, true, reinterpret_cast<std::byte*>(panel.data()));
  for (size_t k = 0; k < 32; ++k) {
    for (size_t c = 0; c < 32; ++c) {
      const bool inside = c == 3 && k % 16 < 5;
      const float want = inside ? row[k / 16 * 5 + k % 16] : 0.0f;
      ASSERT_EQ(panel[(k / 2 * 32 + c) * 2 + k % 2], to_bits(want));
    }
  }
}

TEST(Choose, RefusesWhatTheMachineLacksByName) {
  EXPECT_THROW(choose("sse9", true), std::invalid_argument);
  EXPECT_THROW(choose("amx", false), std::invalid_argument);
  EXPECT_STREQ(choose("portable", false).name, "portable");
  EXPECT_EQ(choose("auto", true).name, available(true).front());
}

}  // namespace
}  // namespace troupe::kernels
