// Runs whose roles are on hosts of their own, with the network failing between them. Deterministic mode: whatever is
// cut, the final weights are those of the undisturbed run, and every draw is in exactly one step of the journal.
#include <chrono>
#include <cstdlib>
#include <functional>
#include <nlohmann/json.hpp>

#include "tests/network/network.hpp"
#include "tests/roles/run_fixture.hpp"

namespace troupe {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr int kPrompts = 8, kGroup = 8;
// Host 0 has launcher, conductor, reward and reference; the others a role each.
enum Host { kConductor, kLearner, kActor0, kActor1, kHosts };

std::unique_ptr<TestNetwork> network_of(const std::string& kind) {
  if (kind == "proxies") return make_proxies(kHosts);
  std::string why_not;
  auto network = make_namespaces(kHosts, 42, why_not);
  if (!network) std::printf("no network namespaces here (%s): the same cases run through proxies\n", why_not.c_str());
  return network;
}

std::vector<std::string> settings(TestNetwork& network, int steps) {
  std::vector<std::string> sets{"nodes.conductor.config.steps=" + std::to_string(steps), "transport.control=tcp",
                                "restarts.lease_s=120"};  // a partition is not to be mended by a restart
  const auto place = [&](const std::string& node, int host) {
    sets.push_back("nodes." + node + ".launch=" + nlohmann::json(network.launch(host)).dump());
    sets.push_back("nodes." + node + ".bind=" + network.bind(host));
    sets.push_back("nodes." + node + ".advertise=" + network.advertise(host));
  };
  place("learner", kLearner);
  place("actor", kActor0);
  place("second-actor", kActor1);
  if (!network.launch(kConductor).empty()) sets.push_back("transport.bind=" + network.bind(kConductor));
  return sets;
}

class Partition : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    network_ = network_of(GetParam());
    if (!network_) GTEST_SKIP() << "no right to make network namespaces";
    std::printf("through %s\n", network_->kind().c_str());
  }
  std::unique_ptr<TroupeRun> start(const std::string& name, int steps) {
    return std::make_unique<TroupeRun>(name + "-" + GetParam(), "grpo-tiny-hosts.json", settings(*network_, steps),
                                       network_->launch(kConductor));
  }
  // Cuts after `step` has ended, heals after `time`, and waits for the next two steps.
  void disturb(const TroupeRun& run, int step, milliseconds time, const char* what, const std::function<void()>& cut) {
    ASSERT_TRUE(run.wait_for_step(step));
    cut();
    std::this_thread::sleep_for(milliseconds(500));
    const std::size_t begun = run.steps_ended();
    std::this_thread::sleep_for(time - milliseconds(500));
    EXPECT_LE(run.steps_ended(), begun + 2) << what << ", and the run did not notice";
    network_->heal();
    const auto healed = Clock::now();
    ASSERT_TRUE(run.wait_for_step(step + 2)) << what;
    std::printf("%s for %lld ms after step %d: two more steps %.2f s after it healed\n", what,
                static_cast<long long>(time.count()), step,
                std::chrono::duration<double>(Clock::now() - healed).count());
  }
  std::unique_ptr<TestNetwork> network_;
};

void expect_same_as_undisturbed(const TroupeRun& run, int steps) {
  EXPECT_EQ(run.weights_digest(), undisturbed(steps).weights_digest());
  EXPECT_NE(run.weights_digest(), "");
  run.ledger(steps, kPrompts, kGroup);
  EXPECT_EQ(run.steps_ended(), static_cast<std::size_t>(steps));
}

TEST_P(Partition, OfAnyHostEndsAndTheWeightsAreTheSameBits) {
  constexpr int kSteps = 24;
  const auto run = start("cut", kSteps);
  const milliseconds time(std::getenv("TROUPE_PARTITION_MS") ? std::atoi(std::getenv("TROUPE_PARTITION_MS")) : 2500);
  disturb(*run, 2, time, "the learner's host was cut off", [&] { network_->cut(kLearner); });
  disturb(*run, 5, time, "an actor's host was cut off", [&] { network_->cut(kActor0); });
  disturb(*run, 8, time, "the conductor's host was cut off", [&] { network_->cut(kConductor); });
  disturb(*run, 11, time, "learner and an actor were cut off from each other",
          [&] { network_->cut_pair(kLearner, kActor1); });
  disturb(*run, 14, time, "nothing passed from the learner to the conductor",
          [&] { network_->cut_one_way(kLearner, kConductor); });
  disturb(*run, 17, time, "nothing passed from the conductor to an actor",
          [&] { network_->cut_one_way(kConductor, kActor1); });
  EXPECT_EQ(run->wait(), 0) << run->output();
  EXPECT_EQ(run->output().find("restart "), std::string::npos) << run->output();  // nobody was taken for dead
  expect_same_as_undisturbed(*run, kSteps);
}

TEST_P(Partition, ThatComesAndGoesEndsWithTheSameBits) {
  constexpr int kSteps = 8;
  const auto run = start("flap", kSteps);
  ASSERT_TRUE(run->wait_for_step(2));
  for (int i = 0; i < 10; ++i) {
    network_->cut(kLearner);
    std::this_thread::sleep_for(milliseconds(300));
    network_->heal();
    std::this_thread::sleep_for(milliseconds(100));
  }
  EXPECT_EQ(run->wait(), 0) << run->output();
  expect_same_as_undisturbed(*run, kSteps);
}

TEST_P(Partition, SlowAndLossyLinksChangeNothing) {
  if (network_->launch(kConductor).empty()) GTEST_SKIP() << "proxies neither delay nor lose";
  constexpr int kSteps = 6;
  const auto run = start("lossy", kSteps);
  ASSERT_TRUE(run->wait_for_step(1));
  network_->delay(20, 10);
  network_->lose(0.05);
  EXPECT_EQ(run->wait(300), 0) << run->output();
  EXPECT_EQ(run->output().find("restart "), std::string::npos) << run->output();
  expect_same_as_undisturbed(*run, kSteps);
}

INSTANTIATE_TEST_SUITE_P(Hosts, Partition, testing::Values("namespaces", "proxies"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace troupe
