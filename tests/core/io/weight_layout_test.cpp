#include "core/io/weight_layout.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <random>

namespace troupe {
namespace {

StateDict sample_state(at::ScalarType type = at::kFloat) {
  at::manual_seed(1);
  return {{"a", at::randn({300, 257}).to(type)},
          {"b", at::randn({5}).to(type)},
          {"c.t", at::randn({64, 10}).t().to(type)},
          {"d.none", at::empty({0, 4}, type)},
          {"e", at::randn({1000}).to(type)}};
}

struct Packed {
  WeightManifest manifest;
  at::Tensor memory;
  std::span<std::byte> bytes() const { return {static_cast<std::byte*>(memory.data_ptr()), manifest.total_bytes}; }
};

Packed packed(const StateDict& state, const std::string& dtype, uint64_t chunk = 64 << 10) {
  Packed p{layout_of(state, dtype, 7), {}};
  p.manifest.chunk_bytes = chunk;
  p.memory = at::full({static_cast<int64_t>(p.manifest.total_bytes)}, 0xee, at::kByte);
  pack(state, p.manifest, p.bytes());
  return p;
}

TEST(WeightLayout, UnpackedTensorsAreThePackedOnes) {
  for (const auto source : {at::kFloat, at::kBFloat16})
    for (const char* dtype : {"f32", "bf16"}) {
      const StateDict state = sample_state(source);
      const Packed p = packed(state, dtype);
      EXPECT_EQ(p.manifest.version, 7u);
      verify(p.manifest, p.bytes());
      const StateDict views = unpack(p.manifest, p.bytes(), std::make_shared<at::Tensor>(p.memory));
      ASSERT_EQ(views.size(), state.size());
      const at::ScalarType type = std::string(dtype) == "f32" ? at::kFloat : at::kBFloat16;
      for (const auto& [name, tensor] : state) {
        EXPECT_EQ(views.at(name).scalar_type(), type);
        EXPECT_TRUE(at::equal(views.at(name), tensor.to(type))) << name << dtype;
      }
      EXPECT_EQ(views.at("a").const_data_ptr(), p.memory.const_data_ptr());
    }
}

TEST(WeightLayout, RoundsEveryKindOfFloatAsTorchDoes) {
  std::mt19937_64 random(2);
  at::Tensor values = at::empty({200'000});
  float* v = values.mutable_data_ptr<float>();
  for (int i = 0; i < 200'000; ++i) {  // any bits: ties, subnormals, infinities, NaNs
    auto bits = static_cast<uint32_t>(random());
    if (i % 3 == 0) bits = (bits & 0xffff0000u) | 0x8000u;
    std::memcpy(v + i, &bits, 4);
  }
  const float specials[] = {0.0f,
                            -0.0f,
                            INFINITY,
                            -INFINITY,
                            NAN,
                            std::numeric_limits<float>::denorm_min(),
                            std::numeric_limits<float>::max(),
                            -std::numeric_limits<float>::max()};
  std::copy(std::begin(specials), std::end(specials), v);
  const Packed p = packed({{"x", values}}, "bf16");
  const at::Tensor expected = values.to(at::kBFloat16).view(at::kShort);
  const at::Tensor got = unpack(p.manifest, p.bytes(), nullptr).at("x").view(at::kShort);
  const at::Tensor nan = at::isnan(values);
  EXPECT_TRUE(at::equal(got.masked_fill(nan, 0), expected.masked_fill(nan, 0)));
  EXPECT_TRUE(at::isnan(got.view(at::kBFloat16)).logical_or(nan.logical_not()).all().item<bool>());
}

TEST(WeightLayout, GapsAreZeroSoTheSameWeightsHaveTheSameDigest) {
  const StateDict state = sample_state();
  const Packed one = packed(state, "bf16");
  Packed two{layout_of(state, "bf16", 8), {}};
  two.manifest.chunk_bytes = 64 << 10;
  two.memory = at::full({static_cast<int64_t>(two.manifest.total_bytes)}, 0x11, at::kByte);
  pack(state, two.manifest, two.bytes());
  EXPECT_TRUE(at::equal(one.memory, two.memory));
  EXPECT_EQ(one.manifest.digest, two.manifest.digest);
  StateDict other = sample_state();
  other["b"][0] += 1;
  EXPECT_NE(packed(other, "bf16").manifest.digest, one.manifest.digest);
  EXPECT_NE(packed(state, "f32").manifest.digest, one.manifest.digest);
}

// Tensors of one buffer, in another order than their names', with a gap.
TEST(WeightLayout, TensorsThatLieTogetherAreARunAsTheyAre) {
  at::manual_seed(1);
  const at::Tensor memory = at::randn({1024}).to(at::kBFloat16);
  const StateDict state{{"a", memory.narrow(0, 512, 300)},
                        {"b", memory.narrow(0, 0, 160).view({5, 32})},
                        {"c", memory.narrow(0, 160, 32)}};
  const std::span bytes(static_cast<const std::byte*>(memory.const_data_ptr()), memory.nbytes());
  std::optional<WeightManifest> manifest = layout_within(state, "bf16", 3, bytes);
  ASSERT_TRUE(manifest);
  EXPECT_EQ(manifest->version, 3u);
  manifest->chunk_bytes = 256;
  sign(*manifest, bytes);
  verify(*manifest, bytes);
  for (const auto& [name, tensor] : unpack(*manifest, bytes, nullptr)) {
    EXPECT_EQ(tensor.const_data_ptr(), state.at(name).const_data_ptr());
    EXPECT_EQ(tensor.sizes(), state.at(name).sizes());
  }
  Packed copy{*manifest, at::empty({static_cast<int64_t>(manifest->total_bytes)}, at::kByte)};
  pack(state, copy.manifest, copy.bytes());  // gaps zero: other checksums, the same tensors
  for (const auto& [name, tensor] : unpack(copy.manifest, copy.bytes(), nullptr))
    EXPECT_TRUE(at::equal(tensor, state.at(name)));

  const auto none = [&](const StateDict& other, std::string_view dtype = "bf16") {
    EXPECT_FALSE(layout_within(other, dtype, 3, bytes));
  };
  none(state, "f32");
  none({{"a", memory.narrow(0, 1, 32)}});
  none({{"a", memory.narrow(0, 0, 160).view({5, 32}).t()}});
  none({{"a", memory.clone()}});
  none({{"a", memory}, {"b", at::zeros({3}, at::kBFloat16)}});
  EXPECT_FALSE(layout_within({{"a", memory}}, "bf16", 3, bytes.first(1024)));
}

TEST(WeightLayout, DoesNotDependOnThreadsOrChunks) {
  const StateDict state = sample_state();
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const Packed one = packed(state, "bf16", 64);
  at::set_num_threads(2);
  const Packed two = packed(state, "bf16", 64);
  const Packed big = packed(state, "bf16", 4 << 20);
  at::set_num_threads(threads);
  EXPECT_EQ(one.manifest.chunk_crc32c, two.manifest.chunk_crc32c);
  EXPECT_TRUE(at::equal(one.memory, two.memory));
  EXPECT_TRUE(at::equal(one.memory, big.memory));
}

TEST(WeightLayout, EveryFlippedBitIsNoticed) {
  const Packed p = packed(sample_state(), "bf16");
  std::mt19937_64 random(3);
  for (int i = 0; i < 500; ++i) {
    const std::size_t at = random() % p.bytes().size();
    const std::byte mask{static_cast<uint8_t>(1 << random() % 8)};
    p.bytes()[at] ^= mask;
    const std::size_t chunk = at / p.manifest.chunk_bytes;
    const std::size_t begin = chunk * p.manifest.chunk_bytes;
    EXPECT_FALSE(verify_chunk(p.manifest, chunk,
                              p.bytes().subspan(begin, std::min(p.manifest.chunk_bytes, p.bytes().size() - begin))));
    EXPECT_THROW(verify(p.manifest, p.bytes()), std::runtime_error);
    p.bytes()[at] ^= mask;
  }
  verify(p.manifest, p.bytes());
  EXPECT_FALSE(verify_chunk(p.manifest, 99, {}));
  EXPECT_FALSE(verify_chunk(p.manifest, 0, p.bytes().first(10)));
}

TEST(WeightLayout, RefusesManifestsThatContradictThemselves) {
  const Packed p = packed(sample_state(), "bf16");
  const auto refused = [&](auto change) {
    WeightManifest m = p.manifest;
    change(m);
    m.digest = manifest_digest(m);
    EXPECT_THROW(unpack(m, p.bytes(), nullptr), std::exception);
    EXPECT_THROW(check_manifest(m), std::runtime_error);
  };
  refused([](WeightManifest& m) { m.dtype = "f64"; });
  refused([](WeightManifest& m) { m.names.pop_back(); });
  refused([](WeightManifest& m) { std::swap(m.names[0], m.names[1]); });
  refused([](WeightManifest& m) { m.shapes[0] = {INT64_MAX, 4}; });
  refused([](WeightManifest& m) { m.shapes[0][0] = -1; });
  refused([](WeightManifest& m) { m.shapes[0][0] += 1; });
  refused([](WeightManifest& m) { m.offsets[1] = 1; });
  refused([](WeightManifest& m) { m.offsets[1] = 0; });
  refused([](WeightManifest& m) { m.offsets.back() = UINT64_MAX - 63; });
  refused([](WeightManifest& m) { m.chunk_bytes = 0; });
  refused([](WeightManifest& m) { m.chunk_bytes = 100; });
  refused([](WeightManifest& m) { m.chunk_crc32c.pop_back(); });
  refused([](WeightManifest& m) { m.total_bytes -= 64; });
  WeightManifest m = p.manifest;
  m.chunk_crc32c[0] ^= 1;
  EXPECT_THROW(check_manifest(m), std::runtime_error);
  EXPECT_THROW(unpack(p.manifest, p.bytes().first(64), nullptr), std::invalid_argument);
}

TEST(WeightLayout, RefusesTensorsOfAnotherModel) {
  StateDict state = sample_state();
  WeightManifest m = layout_of(state, "f32", 1);
  std::vector<std::byte> bytes(m.total_bytes);
  EXPECT_THROW(pack({{"a", at::ones({2})}}, m, bytes), std::invalid_argument);
  state["b"] = at::ones({6});
  EXPECT_THROW(pack(state, m, bytes), std::invalid_argument);
  EXPECT_THROW(pack(sample_state(), m, std::span(bytes).first(10)), std::invalid_argument);
  EXPECT_THROW(layout_of(state, "f16", 1), std::invalid_argument);
  EXPECT_THROW(layout_of({{"ids", at::arange(3)}}, "f32", 1), std::invalid_argument);
}

}  // namespace
}  // namespace troupe
