// Runs of several learners that train as one, and what they survive: whoever is killed wherever, the weights are the
// bits of the undisturbed run.
#include <cmath>
#include <cstdlib>

#include "core/io/safetensors.hpp"
#include "core/metrics/metrics_log.hpp"
#include "tests/roles/run_fixture.hpp"
#include "tests/support/command.hpp"

namespace troupe {
namespace {

constexpr int kSteps = 5;
constexpr int kPrompts = 8, kGroup = 8;

// `faults` as TROUPE_FAULTS has them.
std::unique_ptr<TroupeRun> group_run(const std::string& name, const std::string& faults = "",
                                     std::vector<std::string> more = {},
                                     const std::string& config = "grpo-tiny-local.json") {
  std::vector<std::string> sets{"nodes.conductor.config.steps=" + std::to_string(kSteps),
                                "nodes.conductor.config.checkpoint_every=2", "nodes.learner.count=2"};
  sets.insert(sets.end(), more.begin(), more.end());
  return std::make_unique<TroupeRun>(name, config, sets, faults);
}

const TroupeRun& undisturbed_group() {
  static const std::unique_ptr<TroupeRun> run = [] {
    auto made = group_run("group");
    if (made->wait() != 0) throw std::runtime_error("the undisturbed run failed:\n" + made->output());
    return made;
  }();
  return *run;
}

void expect_same_as_undisturbed_group(TroupeRun& run) {
  ASSERT_EQ(run.wait(), 0) << run.output() << run.log_of("learner/0") << run.log_of("learner/1");
  EXPECT_NE(run.weights_digest(), "");
  EXPECT_EQ(run.weights_digest(), undisturbed_group().weights_digest());
  run.ledger(kSteps, kPrompts, kGroup);
}

// One learner adds its micro-batches up in another order: equal but for float32 rounding.
TEST(LearnerGroup, TwoLearnersDoWhatOneDoes) {
  const TroupeRun& two = undisturbed_group();
  TroupeRun one("one-learner", "grpo-tiny-local.json", {"nodes.conductor.config.steps=" + std::to_string(kSteps)});
  ASSERT_EQ(one.wait(), 0) << one.output();
  const auto metrics_of_one = read_metrics(one.folder() / "metrics.jsonl");
  const auto metrics_of_two = read_metrics(two.folder() / "metrics.jsonl");
  ASSERT_EQ(metrics_of_two.size(), static_cast<std::size_t>(kSteps));
  for (const char* name : {"loss", "grad_norm", "num_tokens", "num_sequences", "reward_mean"}) {
    const double a = metrics_of_one[0].values.at(name), b = metrics_of_two[0].values.at(name);
    EXPECT_NEAR(a, b, 1e-4 * std::abs(a) + 1e-6) << name;
  }
  EXPECT_EQ(metrics_of_two.back().values.at("learner_groups"), 1);
}

TEST(LearnerGroup, OneProcessEndsWithTheSameBits) {
  auto run = group_run("group-standalone", "", {}, "grpo-tiny-standalone.json");
  expect_same_as_undisturbed_group(*run);
}

TEST(LearnerGroup, OverTcpWithKeysEndsWithTheSameBits) {
  auto run = group_run("group-tcp", "", {"transport.control=tcp"});
  expect_same_as_undisturbed_group(*run);
}

TEST(LearnerGroup, AnOptimizerInShardsEndsWithTheSameBits) {
  auto run = group_run("group-zero", "", {"nodes.learner.config.zero=1"});
  expect_same_as_undisturbed_group(*run);
}

struct Fault {
  const char* name;
  const char* faults;
  const char* set = "nodes.learner.config.zero=0";
};

class KilledLearner : public testing::TestWithParam<Fault> {};

TEST_P(KilledLearner, LeavesTheWeightsTheSameBits) {
  const Fault& fault = GetParam();
  auto run = group_run(std::string("killed-") + fault.name, fault.faults, {fault.set});
  expect_same_as_undisturbed_group(*run);
  const std::string node = std::string(fault.faults).substr(0, std::string("learner/0").size());
  EXPECT_NE(run->output().find("started " + node + ", incarnation 2"), std::string::npos) << run->output();
  // The other one kept its process.
  const std::string other = node == "learner/0" ? "learner/1" : "learner/0";
  EXPECT_EQ(run->output().find("started " + other + ", incarnation 2"), std::string::npos) << run->output();
}

// Collectives: 1 is where the group is formed, 2 to 5 are step 1's, 6 to 9 step 2's, and so on; a step's third sums the
// gradients, its last compares the weights.
INSTANTIATE_TEST_SUITE_P(
    At, KilledLearner,
    testing::Values(Fault{"first_at_an_update", "learner/0:update:3:kill"},
                    Fault{"second_at_an_update", "learner/1:update:3:kill"},
                    Fault{"first_in_the_sum", "learner/0:collective:16:kill"},
                    Fault{"second_in_the_sum", "learner/1:collective:16:kill"},
                    Fault{"first_in_the_comparison", "learner/0:collective:17:kill"},
                    Fault{"second_in_the_comparison", "learner/1:collective:17:kill"},
                    Fault{"first_after_the_step", "learner/0:updated:3:kill"},
                    Fault{"second_after_the_step", "learner/1:updated:3:kill"},
                    Fault{"second_while_joining", "learner/1:collective:1:kill"},
                    Fault{"second_with_a_shard", "learner/1:update:4:kill", "nodes.learner.config.zero=1"},
                    Fault{"first_with_a_shard", "learner/0:updated:4:kill", "nodes.learner.config.zero=1"}),
    [](const auto& info) { return std::string(info.param.name); });

// All steps again, in one process; also of a run whose optimizer was in shards, and which lost a learner.
TEST(LearnerGroup, AReplayOfItsStepsIsEqualBitForBit) {
  auto killed = group_run("group-replayed", "learner/1:update:4:kill", {"nodes.learner.config.zero=1"});
  ASSERT_EQ(killed->wait(), 0) << killed->output();
  for (const TroupeRun* run : std::initializer_list<const TroupeRun*>{&undisturbed_group(), killed.get()}) {
    const Ended ended = call({"replay", run->folder().string(), "--step", "1", "--to-step", "5"});
    EXPECT_EQ(ended.code, 0) << ended.out << ended.err;
    EXPECT_NE(ended.out.find("the published weights and the checkpoint"), std::string::npos) << ended.out;
    EXPECT_NE(ended.out.find("equal, bit for bit"), std::string::npos) << ended.out;
  }
}

TEST(LearnerGroup, AReplayShowsWhatAnotherLossWouldHaveMade) {
  const Ended ended = call({"replay", undisturbed_group().folder().string(), "--step", "4", "--to-step", "5", "--set",
                            "algorithm.kl_beta=0.7"});
  ASSERT_EQ(ended.code, 0) << ended.out << ended.err;
  EXPECT_NE(ended.out.find("what if"), std::string::npos) << ended.out;
}

// One of three dies between the two optimizer steps of a batch: nobody has a state to go on with but the checkpoint.
TEST(LearnerGroup, ADeathWithinABatchSendsAllBackToTheCheckpoint) {
  const std::vector<std::string> sets{"nodes.learner.count=3", "nodes.learner.config.mini_batches=2"};
  auto whole = group_run("group-three", "", sets);
  ASSERT_EQ(whole->wait(), 0) << whole->output();
  // A batch has 2 collectives of the old policy's probabilities, 3 of each optimizer step and 1 that compares the
  // weights; 1 formed the group.
  auto run = group_run("group-three-killed", "learner/2:collective:35:kill", sets);
  ASSERT_EQ(run->wait(), 0) << run->output();
  EXPECT_NE(run->weights_digest(), "");
  EXPECT_EQ(run->weights_digest(), whole->weights_digest());
  EXPECT_NE(run->output().find("started learner/2, incarnation 2"), std::string::npos) << run->output();
  EXPECT_EQ(run->output().find("started learner/1, incarnation 2"), std::string::npos) << run->output();
}

// Who waits for a learner that hangs is not taken for hung.
TEST(LearnerGroup, AStoppedLearnerIsReplacedAndItsPeerIsNot) {
  auto run = group_run("group-stopped", "learner/1:collective:12:stop", {"restarts.lease_s=10"});
  expect_same_as_undisturbed_group(*run);
  EXPECT_NE(run->output().find("started learner/1, incarnation 2"), std::string::npos) << run->output();
  EXPECT_EQ(run->output().find("started learner/0, incarnation 2"), std::string::npos) << run->output();
}

// One bit of one weight of one learner, be it the one that publishes: found before anybody hears of the step.
class FlippedBit : public testing::TestWithParam<const char*> {};

TEST_P(FlippedBit, IsFoundBeforeItIsPublished) {
  const std::string node = GetParam();
  auto run = group_run("flipped-" + node.substr(node.find('/') + 1), node + ":updated:4:flip");
  expect_same_as_undisturbed_group(*run);
  const std::string told = run->log_of("learner/0");
  EXPECT_NE(run->log_of(node).find("fault on purpose: " + node + "#1, updated, passage 4: flip"), std::string::npos);
  EXPECT_NE(told.find("the learners' weights are not the same bits: rank 0 has "), std::string::npos) << told;
  EXPECT_NE(told.find("at step 4; all go back to the newest checkpoint"), std::string::npos) << told;
  EXPECT_EQ(run->output().find("incarnation 2"), std::string::npos) << run->output();
  const auto calm = read_metrics(undisturbed_group().folder() / "metrics.jsonl");
  const auto metrics = read_metrics(run->folder() / "metrics.jsonl");
  ASSERT_EQ(metrics.size(), calm.size());
  for (std::size_t i = 0; i < metrics.size(); ++i)  // every version that was published
    EXPECT_EQ(metrics[i].values.at("weights_digest"), calm[i].values.at("weights_digest")) << "step " << i + 1;
  EXPECT_EQ(metrics.back().values.at("learner_disagreements"), 1);
}
INSTANTIATE_TEST_SUITE_P(Of, FlippedBit, testing::Values("learner/0", "learner/1"),
                         [](const auto& info) { return info.index == 0 ? "TheFirst" : "TheSecond"; });

TEST(LearnerGroup, WeightsThatDifferAgainAtTheSameStepEndTheRun) {
  auto run = group_run("flipped-always", "learner/1:updated:*:flip", {"restarts.limit=1"});
  EXPECT_EQ(run->wait(), 1) << run->output();
  EXPECT_NE(run->output().find("at step 1, and were not before at this step"), std::string::npos) << run->output();
}

TEST(LearnerGroup, OutlivesItsConductor) {
  auto run = group_run("group-conductor", "conductor:journal.synced:3:kill");
  expect_same_as_undisturbed_group(*run);
  EXPECT_NE(run->output().find("started conductor/0, incarnation 2"), std::string::npos) << run->output();
  EXPECT_EQ(run->output().find("started learner/1, incarnation 2"), std::string::npos) << run->output();
}

}  // namespace
}  // namespace troupe
