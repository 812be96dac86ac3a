// Learners that train as one: what they agree on, how they share a batch, and that they do one learner's work.
#include "roles/learner_group.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <numeric>

namespace troupe {
namespace {

TEST(Agreement, TheHighestWholeStepWins) {
  const Agreement same = agreement_of({{4}, {4}, {4}}, false);
  EXPECT_EQ(same.root, 0);
  EXPECT_FALSE(same.shared);
  EXPECT_FALSE(same.diverged);

  const Agreement one_ahead = agreement_of({{4}, {5}, {4}}, false);
  EXPECT_EQ(one_ahead.root, 1);
  EXPECT_TRUE(one_ahead.shared);
  EXPECT_TRUE(one_ahead.diverged);

  // A new process stands where the checkpoint is: nobody has diverged.
  const Agreement replaced = agreement_of({{2, true, true}, {5}, {5}}, false);
  EXPECT_EQ(replaced.root, 1);
  EXPECT_TRUE(replaced.shared);
  EXPECT_FALSE(replaced.diverged);

  // Who was cut off within a step has no state, at whatever step.
  const Agreement cut_off = agreement_of({{5, false}, {2, true, true}, {5, false}}, false);
  EXPECT_EQ(cut_off.root, 1);
  EXPECT_TRUE(cut_off.shared);
  EXPECT_FALSE(cut_off.diverged);
  EXPECT_EQ(agreement_of({{5, false}, {5, false}}, false).root, -1);
}

TEST(Agreement, WhereWeightsDifferNobodyIsBelieved) {
  const Agreement two = agreement_of({{4, true, false, 7}, {4, true, false, 8}}, false);
  EXPECT_TRUE(two.disagree);
  EXPECT_EQ(two.root, -1);
  EXPECT_FALSE(two.shared);
  EXPECT_FALSE(agreement_of({{4, true, false, 7}, {4, true, false, 7}}, false).disagree);
  // Of those at the highest step; who takes on their state may have any.
  EXPECT_TRUE(agreement_of({{3, true, false, 5}, {4, true, false, 7}, {4, true, false, 8}}, false).disagree);
  EXPECT_FALSE(agreement_of({{3, true, false, 5}, {4, true, false, 7}, {4, false, false, 8}}, false).disagree);
  EXPECT_TRUE(agreement_of({{4, true, false, 7}, {4, true, true, 8}}, true).disagree);
}

TEST(Agreement, ALostShardSendsAllBackToTheCheckpoint) {
  EXPECT_EQ(agreement_of({{4}, {4}}, true).root, 0);
  EXPECT_EQ(agreement_of({{4, true, true}, {4}}, true).root, 0);  // the checkpoint is of this very step
  EXPECT_EQ(agreement_of({{2, true, true}, {4}}, true).root, -1);
  EXPECT_EQ(agreement_of({{4}, {5}}, true).root, -1);
  EXPECT_TRUE(agreement_of({{4}, {5}}, true).diverged);
  EXPECT_EQ(agreement_of({{4}, {4, false}}, true).root, -1);
}

// Sequences of these prompts (equal numbers: the same prompt) and answer lengths; prompts are ten tokens long.
PackedBatch batch_of(const std::vector<std::pair<int64_t, int64_t>>& sequences) {
  PackedBatch batch;
  std::vector<at::Tensor> tokens;
  for (const auto& [prompt, answer] : sequences) {
    tokens.push_back(at::full({10}, prompt, at::kLong));
    tokens.push_back(at::full({answer}, 99, at::kLong));
    batch.prompt_lengths.push_back(10);
    batch.response_lengths.push_back(answer);
  }
  batch.tokens = sequences.empty() ? at::empty({0}, at::kLong) : at::cat(tokens);
  return batch;
}

TEST(Shares, AreOfAboutEqualTokensAndCutBetweenPrompts) {
  using Bounds = std::vector<int64_t>;
  const PackedBatch even = batch_of({{1, 5}, {1, 5}, {2, 5}, {2, 5}, {3, 5}, {3, 5}, {4, 5}, {4, 5}});
  EXPECT_EQ(share_bounds(even, 1), (Bounds{0, 8}));
  EXPECT_EQ(share_bounds(even, 2), (Bounds{0, 4, 8}));
  EXPECT_EQ(share_bounds(even, 3), (Bounds{0, 2, 6, 8}));
  EXPECT_EQ(share_bounds(even, 4), (Bounds{0, 2, 4, 6, 8}));
  // One long answer is worth many short ones.
  EXPECT_EQ(share_bounds(batch_of({{1, 200}, {2, 5}, {3, 5}, {4, 5}}), 2), (Bounds{0, 1, 4}));
  // Fewer prompts than learners: answers to one prompt are shared out.
  EXPECT_EQ(share_bounds(batch_of({{1, 5}, {1, 5}, {1, 5}, {1, 5}}), 2), (Bounds{0, 2, 4}));
  EXPECT_EQ(share_bounds(batch_of({{1, 5}}), 3), (Bounds{0, 0, 1, 1}));
  EXPECT_EQ(share_bounds(batch_of({}), 2), (Bounds{0, 0, 0}));
}

}  // namespace
}  // namespace troupe
