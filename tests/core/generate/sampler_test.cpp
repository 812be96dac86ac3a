#include "core/generate/sampler.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/generate/philox.hpp"
#include "core/io/safetensors.hpp"

namespace troupe {
namespace {

// Logits as the sampler wants them: padded, with their stats.
struct Prepared {
  Prepared(std::vector<float> logits, const Sampling& sampling) : values(std::move(logits)) {
    vocab_size = static_cast<int64_t>(values.size());
    values.resize((values.size() + 15) / 16 * 16, -INFINITY);
    for (int64_t first = 0; first < vocab_size; first += kernels::kLogitBlock) {
      const int64_t n = std::min<int64_t>(kernels::kLogitBlock, static_cast<int64_t>(values.size()) - first);
      stats.push_back(table.logit_stats(values.data() + first, n, inverse_temperature(sampling)));
    }
  }
  Draw draw(const Sampling& s, double uniform, std::span<const int32_t> prompt = {},
            std::span<const int32_t> answer = {}) {
    return draw_token(table, {values.data(), stats.data(), vocab_size}, s, prompt, answer, uniform);
  }
  const kernels::KernelTable& table = kernels::choose("auto", false);
  std::vector<float> values;
  std::vector<kernels::BlockStats> stats;
  int64_t vocab_size;
};

std::vector<float> floats(const at::Tensor& t) {
  return {t.data_ptr<float>(), t.data_ptr<float>() + t.numel()};
}

// The sampler is an inverse of a cumulative distribution: evenly spaced numbers give each token its probability.
std::vector<double> shares(Prepared& row, const Sampling& s, std::span<const int32_t> prompt,
                           std::span<const int32_t> answer, int points) {
  std::vector<double> share(static_cast<size_t>(row.vocab_size), 0.0);
  for (int i = 0; i < points; ++i)
    share[static_cast<size_t>(row.draw(s, (i + 0.5) / points, prompt, answer).token)] += 1.0 / points;
  return share;
}

TEST(Sampler, LeavesTheDistributionThatTransformersProcessorsLeave) {
  const std::string folder = TROUPE_SOURCE_DIR "/tests/oracles/data/generate/";
  const SafetensorsFile file(folder + "sampling.safetensors");
  const auto cases = nlohmann::json::parse(std::ifstream(folder + "sampling.json"));
  ASSERT_GT(cases.size(), 30u);
  for (size_t i = 0; i < cases.size(); ++i) {
    const std::string n = std::to_string(i) + ".";
    Sampling s;
    s.temperature = cases[i].value("temperature", 1.0);
    s.top_k = cases[i].value("top_k", 0);
    s.top_p = cases[i].value("top_p", 1.0);
    s.min_p = cases[i].value("min_p", 0.0);
    s.repetition_penalty = cases[i].value("repetition_penalty", 1.0);
    Prepared row(floats(file.read(n + "logits")), s);
    const at::Tensor seen = file.read(n + "seen");
    const std::span<const int32_t> ids(seen.data_ptr<int32_t>(), static_cast<size_t>(seen.numel()));
    const std::vector<float> want = floats(file.read(n + "probabilities"));
    const std::vector<float> logprobs = floats(file.read(n + "logprobs"));
    const int points = 20000;
    std::vector<double> got = shares(row, s, ids.first(7), ids.subspan(7), points);
    // Which of several equal logits a border cuts off is left open: compare the probabilities in order of size.
    std::vector<double> wanted(want.begin(), want.end());
    std::ranges::sort(got);
    std::ranges::sort(wanted);
    for (size_t t = 0; t < got.size(); ++t) ASSERT_NEAR(got[t], wanted[t], 2.0 / points) << "case " << i;
    for (double u : {0.01, 0.5, 0.99}) {
      const Draw d = row.draw(s, u, ids.first(7), ids.subspan(7));
      ASSERT_NEAR(d.logprob, logprobs[static_cast<size_t>(d.token)], 2e-5) << "case " << i;
    }
  }
}

TEST(Sampler, DrawsALargeVocabularyWithItsProbabilities) {
  at::manual_seed(3);
  Sampling s;
  s.temperature = 1.3;
  const int64_t vocab = 5003;
  const at::Tensor logits = at::randn(vocab) * 2;
  Prepared row(floats(logits), s);
  const std::vector<double> got = shares(row, s, {}, {}, 200000);
  const at::Tensor want = at::softmax(logits.to(at::kDouble) / 1.3, -1).contiguous();
  for (int64_t t = 0; t < vocab; ++t) ASSERT_NEAR(got[static_cast<size_t>(t)], want.data_ptr<double>()[t], 1.1e-5);
}

// Pearson's chi-square of draws with the engine's own random numbers.
TEST(Sampler, DrawsWithCounterBasedNumbersPassChiSquare) {
  at::manual_seed(4);
  const int64_t vocab = 40;
  const int draws = 40000;
  const at::Tensor logits = at::randn(vocab);
  const Sampling s;
  Prepared row(floats(logits), s);
  const at::Tensor p = at::softmax(logits.to(at::kDouble), -1).contiguous();
  std::vector<int> counts(vocab, 0);
  for (int i = 0; i < draws; ++i) {
    const double u = token_uniform(42, static_cast<uint64_t>(i / 100), static_cast<uint32_t>(i % 10),
                                   static_cast<uint32_t>(i / 10 % 10));
    ++counts[static_cast<size_t>(row.draw(s, u).token)];
  }
  double chi_square = 0;
  for (int64_t t = 0; t < vocab; ++t) {
    const double expected = draws * p.data_ptr<double>()[t];
    chi_square += (counts[static_cast<size_t>(t)] - expected) * (counts[static_cast<size_t>(t)] - expected) / expected;
  }
  EXPECT_LT(chi_square, 72.05);  // 39 degrees of freedom, one in a thousand
}

TEST(Sampler, GreedyTakesTheLowestOfEqualIds) {
  Sampling s;
  s.temperature = 0;
  std::vector<float> logits(1400, 0.0f);
  logits[1300] = logits[700] = logits[701] = 3.5f;
  Prepared row(logits, s);
  const Draw d = row.draw(s, 0.9);
  EXPECT_EQ(d.token, 700);
  EXPECT_NEAR(d.logprob, 3.5 - std::log(3 * std::exp(3.5) + 1397), 1e-5);
}

TEST(Sampler, GreedyHeedsTheRepetitionPenaltyAndRestoresTheRow) {
  Sampling s;
  s.temperature = 0;
  s.repetition_penalty = 2;
  const std::vector<float> logits{1.0f, 3.0f, -0.5f, 2.0f};
  Prepared row(logits, s);
  const std::vector<int32_t> prompt{1, 1}, answer{2};
  const Draw d = row.draw(s, 0, prompt, answer);
  EXPECT_EQ(d.token, 3);
  for (size_t i = 0; i < logits.size(); ++i) EXPECT_EQ(row.values[i], logits[i]);
}

TEST(Sampler, RefusesLogitsThatAreNotFinite) {
  const Sampling s;
  Prepared row({1.0f, NAN, 2.0f}, s), infinite({1.0f, INFINITY, 2.0f}, s);
  EXPECT_THROW(row.draw(s, 0.5), std::runtime_error);
  EXPECT_THROW(infinite.draw(s, 0.5), std::runtime_error);
}

TEST(Sampler, RefusesValuesOutOfRange) {
  const auto refuses = [](auto change) {
    Sampling s;
    change(s);
    EXPECT_THROW(check_sampling(s), std::invalid_argument);
  };
  refuses([](Sampling& s) { s.temperature = -1; });
  refuses([](Sampling& s) { s.temperature = NAN; });
  refuses([](Sampling& s) { s.top_k = -1; });
  refuses([](Sampling& s) { s.top_p = 0; });
  refuses([](Sampling& s) { s.top_p = 1.1; });
  refuses([](Sampling& s) { s.min_p = 2; });
  refuses([](Sampling& s) { s.repetition_penalty = 0; });
  refuses([](Sampling& s) { s.max_new_tokens = 0; });
  refuses([](Sampling& s) { s.stop = {""}; });
}

// Known answers of Random123's kat_vectors for philox4x32, 10 rounds.
TEST(Philox, GivesThePublishedNumbers) {
  using Words = std::array<uint32_t, 4>;
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

}  // namespace
}  // namespace troupe
