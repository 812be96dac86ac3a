// `troupe replay`: a run's steps again, alone, bit for bit; and what another loss or reward would have made of them.
#include <fstream>
#include <regex>

#include "roles/rescore.hpp"
#include "roles/run_journal.hpp"
#include "tests/roles/run_fixture.hpp"
#include "tests/support/command.hpp"

namespace troupe {
namespace {

namespace fs = std::filesystem;

// With checkpoints of steps 3 and 6 (the last), so that a replay starts from either of base model and checkpoint.
const TroupeRun& run() {
  static const std::unique_ptr<TroupeRun> made = [] {
    auto run = std::make_unique<TroupeRun>(
        "replayed", "grpo-tiny-local.json",
        std::vector<std::string>{"nodes.conductor.config.steps=6", "nodes.conductor.config.checkpoint_every=3"});
    if (run->wait() != 0) throw std::runtime_error("the run failed:\n" + run->output());
    return run;
  }();
  return *made;
}

Ended replay(std::vector<std::string> more) {
  more.insert(more.begin(), {"replay", run().folder().string()});
  return call(more);
}

TEST(Replay, EveryStepComesOutTheSameBitForBit) {
  const Ended ended = replay({"--step", "1", "--to-step", "6"});
  EXPECT_EQ(ended.code, 0) << ended.out << ended.err;
  EXPECT_NE(ended.out.find("from the base model"), std::string::npos) << ended.out;
  EXPECT_NE(ended.out.find("equal, bit for bit"), std::string::npos) << ended.out;
  EXPECT_NE(ended.out.find("step 6: "), std::string::npos) << ended.out;
  EXPECT_NE(ended.out.find("the published weights and the checkpoint"), std::string::npos) << ended.out;
}

TEST(Replay, StartsFromTheNewestCheckpointBefore) {
  const Ended ended = replay({"--step", "5"});
  EXPECT_EQ(ended.code, 0) << ended.out << ended.err;
  EXPECT_NE(ended.out.find("from the checkpoint of step 3, 1 steps fed again before step 5"), std::string::npos)
      << ended.out;
}

TEST(Replay, SaysWhatDiffers) {
  const ScratchFolder scratch;
  const fs::path spoilt = scratch.path() / run().folder().filename();
  fs::copy(run().folder(), spoilt, fs::copy_options::recursive);
  std::ifstream in(spoilt / "metrics.jsonl");
  std::string text((std::istreambuf_iterator<char>(in)), {});
  in.close();
  text = std::regex_replace(text, std::regex("\"grad_norm\":"), "\"grad_norm\":1");
  text = std::regex_replace(text, std::regex("\"weights_digest\":"), "\"weights_digest\":1");
  std::ofstream(spoilt / "metrics.jsonl") << text;
  const Ended ended = call({"replay", spoilt.string(), "--step", "2"});
  EXPECT_EQ(ended.code, 1);
  EXPECT_NE(ended.err.find("step 2: grad_norm is "), std::string::npos) << ended.err;
  EXPECT_NE(ended.err.find("step 2: weights_digest is "), std::string::npos) << ended.err;
  EXPECT_EQ(ended.out.find("equal, bit for bit"), std::string::npos);
}

TEST(Replay, AnotherLossShowsBothSidesAndExportsWhatWouldBe) {
  const ScratchFolder scratch;
  const Ended ended = replay({"--step", "4", "--to-step", "5", "--set", "algorithm.kl_beta=0.7", "--export",
                              (scratch.path() / "what-if").string()});
  ASSERT_EQ(ended.code, 0) << ended.out << ended.err;
  EXPECT_TRUE(std::regex_search(ended.out, std::regex("step 5 +as it was +what if +difference"))) << ended.out;
  EXPECT_TRUE(fs::exists(scratch.path() / "what-if" / "model.safetensors"));
  // The first step starts from the same weights: the rewards and the KL are the same, the loss is not.
  EXPECT_TRUE(std::regex_search(ended.out, std::regex("\n  reward_mean +[-0-9.e]+ +[-0-9.e]+ +0\n"))) << ended.out;
  EXPECT_FALSE(std::regex_search(ended.out, std::regex("\n  loss +[-0-9.e]+ +[-0-9.e]+ +0\n"))) << ended.out;
}

TEST(Replay, AnotherRewardScoresTheAnswersAnew) {
  const ScratchFolder scratch;
  std::ofstream(scratch.path() / "reward.json") << R"({"rules": [{"type": "format", "pattern": "\\d", "weight": 5}]})";
  const Ended ended = replay({"--step", "4", "--reward", (scratch.path() / "reward.json").string()});
  ASSERT_EQ(ended.code, 0) << ended.out << ended.err;
  EXPECT_FALSE(std::regex_search(ended.out, std::regex("\n  reward_mean +[-0-9.e]+ +[-0-9.e]+ +0\n"))) << ended.out;
}

TEST(Replay, RefusesWhatItCannotReplayInOneLine) {
  const Ended late = replay({"--step", "7"});
  EXPECT_EQ(late.code, 1);
  EXPECT_EQ(late.err, "troupe: the journal ends at step 6, asked for step 7\n");
  const Ended other = replay({"--step", "2", "--set", "run.seed=4"});
  EXPECT_EQ(other.code, 1);
  EXPECT_NE(other.err.find("--set run.seed=4: a replay changes"), std::string::npos) << other.err;
}

// The texts, the truncation and the scores are read back from the tokens as the run had them.
TEST(Rescore, TheRunsOwnRulesGiveTheRunsOwnAdvantagesBitForBit) {
  const Topology topology = read_run_topology(run().folder());
  const JsonPath where("topology.json");
  const Rescorer rescore(topology, make_algorithm(topology.algorithm, where),
                         RuleSet::from_json(node_of(topology, "reward/0").config, where));
  for (const Experience& batch : read_experiences(run().folder() / "journal")) {
    const Experience again = rescore(batch);
    const auto same = [](const Attachment& a, const Attachment& b) { return std::ranges::equal(a.bytes, b.bytes); };
    EXPECT_TRUE(same(again.rewards, batch.rewards)) << batch.step;
    EXPECT_TRUE(same(again.advantages, batch.advantages)) << batch.step;
    EXPECT_TRUE(same(again.keep, batch.keep)) << batch.step;
    EXPECT_TRUE(same(again.loss_mask, batch.loss_mask)) << batch.step;
  }
}

}  // namespace
}  // namespace troupe
