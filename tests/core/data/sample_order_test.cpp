// Orders as torch draws them (tests/oracles/samples/make_samples.py).
#include "core/data/sample_order.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "core/io/sha256.hpp"

namespace troupe {
namespace {

nlohmann::json orders() {
  return nlohmann::json::parse(std::ifstream(TROUPE_SOURCE_DIR "/tests/oracles/data/samples/orders.json"));
}

std::string digest(const std::vector<int64_t>& order) {
  Sha256 sha;
  for (size_t i = 0; i < order.size(); ++i) sha.update((i ? "," : "") + std::to_string(order[i]));
  return sha.finish_hex();
}

TEST(SampleOrder, PermutationsAreTorchs) {
  const nlohmann::json cases = orders()["permutations"];
  EXPECT_GE(cases.size(), 50u);
  for (const nlohmann::json& oracle : cases) {
    std::vector<int64_t> order = torch_permutation(oracle["n"], oracle["seed"]);
    EXPECT_EQ(digest(order), oracle["sha256"]) << oracle["n"] << " " << oracle["seed"];
    order.resize(std::min<size_t>(order.size(), 12));
    EXPECT_EQ(order, oracle["first"].get<std::vector<int64_t>>());
  }
}

TEST(SampleOrder, SharesAreDistributedSamplers) {
  const nlohmann::json cases = orders()["shares"];
  EXPECT_GE(cases.size(), 50u);
  for (const nlohmann::json& oracle : cases)
    EXPECT_EQ(digest(epoch_order(oracle["n"], oracle["epoch"], oracle["rank"], oracle["world"])), oracle["order"])
        << oracle;
}

TEST(SampleOrder, AloneAnEpochIsSeededWith42AndItsNumber) {
  for (int64_t epoch = 0; epoch < 3; ++epoch)
    EXPECT_EQ(epoch_order(100, epoch, 0, 1), torch_permutation(100, 42 + static_cast<uint64_t>(epoch)));
  EXPECT_TRUE(epoch_order(0, 0, 0, 1).empty());
  EXPECT_TRUE(epoch_order(0, 0, 1, 2).empty());
}

TEST(SampleOrder, RefusesRanksThatAreNone) {
  EXPECT_THROW(epoch_order(10, 0, 2, 2), std::invalid_argument);
  EXPECT_THROW(epoch_order(10, 0, -1, 2), std::invalid_argument);
  EXPECT_THROW(epoch_order(10, 0, 0, 0), std::invalid_argument);
  EXPECT_THROW(torch_permutation(-1, 0), std::invalid_argument);
}

}  // namespace
}  // namespace troupe
