#include "core/algorithms/advantages.hpp"

#include <gtest/gtest.h>

#include <random>

#include "core/config.hpp"
#include "core/rewards/overlong.hpp"

namespace troupe {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

GroupRewards groups_of(std::vector<double> rewards, std::size_t group_size) {
  GroupRewards answers;
  for (std::size_t i = 0; i < rewards.size(); ++i) answers.groups.push_back(i / group_size);
  answers.rewards = std::move(rewards);
  return answers;
}

void expect_near(const std::vector<float>& got, const std::vector<double>& expected, double tolerance = 1e-6) {
  ASSERT_EQ(got.size(), expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], expected[i], tolerance) << "answer " << i;
}

const std::vector<double> kThreeGroups{1, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1, 1};

TEST(Advantages, GroupNormMatchesOpenRlhf) {
  AdvantageConfig c;
  c.std_epsilon = 1e-9;
  expect_near(group_advantages(c, groups_of(kThreeGroups, 4)).advantages,
              {.866025, -.866025, -.866025, .866025, -.5, -.5, -.5, 1.5, 0, 0, 0, 0});
}

TEST(Advantages, LeaveOneOutMatchesOpenRlhf) {
  AdvantageConfig c;
  c.baseline = Baseline::kLeaveOneOut;
  c.scale = AdvantageScale::kNone;
  expect_near(group_advantages(c, groups_of(kThreeGroups, 4)).advantages,
              {.666667, -.666667, -.666667, .666667, -.333333, -.333333, -.333333, 1, 0, 0, 0, 0});
}

TEST(Advantages, PopulationDivisorIsNumpys) {
  AdvantageConfig c;
  c.std_divisor = StdDivisor::kPopulation;
  c.std_epsilon = 1e-8;
  expect_near(group_advantages(c, groups_of({1, 0, 0, 1}, 4)).advantages, {1, -1, -1, 1});
}

TEST(Advantages, BatchMeanAndNoBaseline) {
  AdvantageConfig c;
  c.scale = AdvantageScale::kNone;
  c.baseline = Baseline::kBatchMean;
  expect_near(group_advantages(c, groups_of({1, 0, 2, 5}, 2)).advantages, {-1, -2, 0, 3});
  c.baseline = Baseline::kNone;
  expect_near(group_advantages(c, groups_of({1, 0, 2, 5}, 2)).advantages, {1, 0, 2, 5});
}

TEST(Advantages, WhiteningGivesMeanZeroAndDeviationOne) {
  AdvantageConfig c;
  c.baseline = Baseline::kLeaveOneOut;
  c.scale = AdvantageScale::kNone;
  c.whiten = true;
  const auto a = group_advantages(c, groups_of({3, 1, 4, 1, 5, 9, 2, 6}, 4)).advantages;
  double mean = 0, squares = 0;
  for (const float v : a) mean += v / 8.0;
  for (const float v : a) squares += (v - mean) * (v - mean);
  EXPECT_NEAR(mean, 0, 1e-6);
  EXPECT_NEAR(std::sqrt(squares / 7), 1, 1e-3);
}

TEST(Advantages, ClipBoundsThem) {
  AdvantageConfig c;
  c.scale = AdvantageScale::kNone;
  c.clip = 10;
  expect_near(group_advantages(c, groups_of({100, 0, 1, -1}, 2)).advantages, {10, -10, 1, -1});
}

TEST(Advantages, UnscoredAnswersAreLeftOutAndGetZero) {
  const auto got = group_advantages({}, groups_of({1, kNaN, 0, 1, kNaN, kNaN, kNaN, 2}, 4));
  EXPECT_EQ(got.num_unscored, 4);
  EXPECT_EQ(got.advantages[1], 0);
  EXPECT_NEAR(got.advantages[0] + got.advantages[2] + got.advantages[3], 0, 1e-6);  // the mean is of three
  for (int i = 4; i < 8; ++i) EXPECT_EQ(got.advantages[i], 0);                      // one score tells nothing
  EXPECT_NEAR(got.reward_mean, 1, 1e-12);
}

TEST(Advantages, ZeroVarianceGroupsAreCountedAndDroppedWhenAsked) {
  AdvantageConfig c;
  auto got = group_advantages(c, groups_of(kThreeGroups, 4));
  EXPECT_NEAR(got.zero_variance_fraction, 1.0 / 3, 1e-12);
  EXPECT_EQ(got.keep, std::vector<uint8_t>(12, 1));
  c.zero_variance_groups = ZeroVarianceGroups::kDrop;
  got = group_advantages(c, groups_of(kThreeGroups, 4));
  EXPECT_EQ(got.keep, (std::vector<uint8_t>{1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0}));
}

TEST(Advantages, AGroupOfOneHasAdvantageZero) {
  for (const Baseline b : {Baseline::kGroupMean, Baseline::kLeaveOneOut}) {
    AdvantageConfig c;
    c.baseline = b;
    expect_near(group_advantages(c, groups_of({7, 3}, 1)).advantages, {0, 0});
  }
}

TEST(Advantages, DoNotDependOnTheOrderOfAnswers) {
  std::mt19937 random(3);
  GroupRewards answers;
  for (int i = 0; i < 40; ++i) {
    answers.rewards.push_back(std::uniform_real_distribution<>(-1, 1)(random));
    answers.groups.push_back(100 + i % 5);
  }
  for (const AdvantageScale scale : {AdvantageScale::kGroup, AdvantageScale::kBatch}) {
    AdvantageConfig c;
    c.scale = scale;
    c.whiten = true;
    const auto before = group_advantages(c, answers);
    std::vector<std::size_t> order(40);
    for (std::size_t i = 0; i < 40; ++i) order[i] = i;
    std::shuffle(order.begin(), order.end(), random);
    GroupRewards moved;
    for (const std::size_t i : order) {
      moved.rewards.push_back(answers.rewards[i]);
      moved.groups.push_back(answers.groups[i]);
    }
    const auto after = group_advantages(c, moved);
    for (std::size_t i = 0; i < 40; ++i) EXPECT_EQ(after.advantages[i], before.advantages[order[i]]);
  }
}

TEST(Advantages, OverlongAnswersArePunishedBeforeGrouping) {
  AdvantageConfig c;
  c.scale = AdvantageScale::kNone;
  c.overlong_max_tokens = 100;
  c.overlong_buffer_tokens = 20;
  GroupRewards answers = groups_of({1, 1, 1, 1}, 4);
  answers.num_tokens = {80, 90, 100, 200};
  expect_near(group_advantages(c, answers).advantages, {.625, .125, -.375, -.375});
}

TEST(Advantages, TruncatedAnswersCountNoTokenWhenAsked) {
  AdvantageConfig c;
  GroupRewards answers = groups_of({1, 0}, 2);
  answers.truncated = {0, 1};
  EXPECT_EQ(group_advantages(c, answers).count_tokens, (std::vector<uint8_t>{1, 1}));
  c.mask_truncated = true;
  EXPECT_EQ(group_advantages(c, answers).count_tokens, (std::vector<uint8_t>{1, 0}));
}

TEST(Advantages, SoftOverlongPunishmentIsDaposEquation13) {
  EXPECT_EQ(soft_overlong_punishment(80, 100, 20), 0);
  EXPECT_EQ(soft_overlong_punishment(81, 100, 20), -0.05);
  EXPECT_EQ(soft_overlong_punishment(90, 100, 20), -0.5);
  EXPECT_EQ(soft_overlong_punishment(100, 100, 20), -1);
  EXPECT_EQ(soft_overlong_punishment(101, 100, 20), -1);
}

void expect_refused(const std::function<void()>& act, const std::string& words) {
  try {
    act();
    FAIL() << "accepted, expected an error with: " << words;
  } catch (const std::invalid_argument& error) {
    EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
  }
}

TEST(Advantages, RefuseListsThatDoNotFit) {
  GroupRewards answers = groups_of({1, 0}, 2);
  answers.groups.pop_back();
  expect_refused([&] { group_advantages({}, answers); }, "groups");
  answers = groups_of({1, std::numeric_limits<double>::infinity()}, 2);
  expect_refused([&] { group_advantages({}, answers); }, "infinite");
  AdvantageConfig c;
  c.combination = RewardCombination::kNormalizeThenSum;
  c.part_weights = {{"format", 1}};
  expect_refused([&] { group_advantages(c, groups_of({1, 0}, 2)); }, "no part 'format'");
  c = {};
  c.overlong_max_tokens = 9;
  c.overlong_buffer_tokens = 3;
  expect_refused([&] { group_advantages(c, groups_of({1, 0}, 2)); }, "num_tokens");
}

TEST(Advantages, SettingsThatMakeNoSenseAreNamed) {
  const auto refused = [](const std::string& json, const std::string& words) {
    expect_refused(
        [&] {
          check(from_json<AdvantageConfig>(parse_json(json, "t"), JsonPath("t", "advantage")),
                JsonPath("t", "advantage"));
        },
        words);
  };
  refused(R"({"std_epsilon": 0})", "advantage.std_epsilon");
  refused(R"({"combination": "normalize_then_sum"})", "advantage.part_weights");
  refused(R"({"combination": "normalize_then_sum", "part_weights": {"a": 1}, "scale": "none"})", "advantage.scale");
  refused(R"({"overlong_max_tokens": 10})", "advantage.overlong_buffer_tokens");
  refused(R"({"part_weights": {"a": 1}})", "advantage.part_weights");
}

}  // namespace
}  // namespace troupe
