#include "core/metrics/metrics_log.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/metrics/metric_names.hpp"
#include "tests/core/metrics/scratch_folder.hpp"

namespace troupe {
namespace {

TEST(MetricsLog, WritesOneLinePerStepThatReadsBackTheSame) {
  const ScratchFolder folder;
  const auto file = folder / "metrics.jsonl";
  MetricsLog log(file, 0);
  log.write(1, {{"reward_mean", 0.1}, {"kl", 1e-300}});
  log.write(2, {{"reward_mean", 1.0 / 3}, {"time_s", 7.5}});
  const auto steps = read_metrics(file);
  ASSERT_EQ(steps.size(), 2u);
  EXPECT_EQ(steps[0].step, 1u);
  EXPECT_EQ(steps[0].values.at("kl"), 1e-300);
  EXPECT_EQ(steps[1].values.at("reward_mean"), 1.0 / 3);
  EXPECT_EQ(steps[1].values.at("time_s"), 7.5);
  EXPECT_TRUE(steps[0].values.contains("time_s"));
}

TEST(MetricsLog, IsFlushedLineByLine) {
  const ScratchFolder folder;
  const auto file = folder / "metrics.jsonl";
  MetricsLog log(file, 0);
  log.write(1, {{"loss", 2.0}});
  EXPECT_TRUE(text_of(file).ends_with("}\n"));
}

TEST(MetricsLog, WritesNullForWhatIsNotFiniteAndReadsItAsNan) {
  const ScratchFolder folder;
  const auto file = folder / "metrics.jsonl";
  MetricsLog(file, 0).write(1, {{"loss", std::nan("")}, {"kl", std::numeric_limits<double>::infinity()}});
  EXPECT_NE(text_of(file).find("\"kl\":null"), std::string::npos);
  EXPECT_TRUE(std::isnan(read_metrics(file)[0].values.at("loss")));
}

TEST(MetricsLog, RefusesAStepThatDoesNotFollow) {
  const ScratchFolder folder;
  MetricsLog log(folder / "metrics.jsonl", 0);
  log.write(3, {});
  EXPECT_THROW(log.write(3, {}), std::invalid_argument);
  EXPECT_THROW(log.write(2, {}), std::invalid_argument);
}

TEST(MetricsLog, AResumeCutsLaterStepsAndATornLine) {
  const ScratchFolder folder;
  const auto file = folder / "metrics.jsonl";
  {
    MetricsLog log(file, 0);
    for (uint64_t step = 1; step <= 5; ++step) log.write(step, {{"time_s", 10.0 * static_cast<double>(step)}});
  }
  std::ofstream(file, std::ios::app) << "{\"step\":6,\"lo";
  MetricsLog log(file, 3);
  log.write(4, {{"loss", 1}});
  const auto steps = read_metrics(file);
  ASSERT_EQ(steps.size(), 4u);
  EXPECT_EQ(steps[3].step, 4u);
  EXPECT_GE(steps[3].values.at("time_s"), 30.0) << "time goes on from the last line kept";
  EXPECT_LT(steps[3].values.at("time_s"), 40.0);
}

TEST(MetricsLog, AResumeCutsATornLineAlsoWhenAllStepsAreKept) {
  const ScratchFolder folder;
  const auto file = folder / "metrics.jsonl";
  write_text(file, "{\"step\":1}\n{\"step\":2");
  MetricsLog(file, 1).write(2, {});
  EXPECT_EQ(read_metrics(file).size(), 2u);
}

// As a power cut can leave it: zeros in the middle, whole lines behind.
TEST(MetricsLog, WhatIsDamagedIsCutOff) {
  const ScratchFolder folder;
  const auto file = folder / "metrics.jsonl";
  EXPECT_FALSE(cut_damaged_metrics(file)) << "there is none";
  write_text(file, "{\"step\":1}\n{\"step\":2}\n" + std::string(10, '\0') + "\n{\"step\":4}\n{\"st");
  EXPECT_TRUE(cut_damaged_metrics(file));
  EXPECT_EQ(read_metrics(file).size(), 2u);
  EXPECT_FALSE(cut_damaged_metrics(file));
}

TEST(MetricsLog, NamesFileAndLineOfWhatIsNoStep) {
  const ScratchFolder folder;
  const auto file = folder / "metrics.jsonl";
  for (const char* bad : {"[]", "{\"loss\":1}", "{\"step\":-1}", "{\"step\":2,\"loss\":\"x\"}", "nonsense", ""}) {
    write_text(file, std::string("{\"step\":1}\n") + bad + "\n");
    try {
      read_metrics(file);
      ADD_FAILURE() << "accepted: " << bad;
    } catch (const std::runtime_error& error) {
      EXPECT_NE(std::string(error.what()).find("metrics.jsonl:2: "), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("expected "), std::string::npos) << error.what();
    }
  }
  EXPECT_THROW(read_metrics(folder / "absent"), std::runtime_error);
}

TEST(MetricsTail, GivesEachStepOnceAndSurvivesAResume) {
  const ScratchFolder folder;
  const auto file = folder / "metrics.jsonl";
  MetricsTail tail(file);
  EXPECT_TRUE(tail.take_new().empty());
  MetricsLog log(file, 0);
  log.write(1, {});
  log.write(2, {});
  std::ofstream(file, std::ios::app) << "{\"step\":3";  // another writer's half line
  EXPECT_EQ(tail.take_new().size(), 2u);
  EXPECT_TRUE(tail.take_new().empty());
  MetricsLog resumed(file, 1);
  EXPECT_TRUE(tail.take_new().empty());
  resumed.write(2, {});
  resumed.write(3, {});
  const auto fresh = tail.take_new();
  ASSERT_EQ(fresh.size(), 1u);
  EXPECT_EQ(fresh[0].step, 3u);
}

TEST(MetricNames, EveryNameIsDocumentedAndFound) {
  const std::string page = text_of(std::string(TROUPE_SOURCE_DIR) + "/docs/metrics.md");
  for (const MetricName& metric : metric_names())
    EXPECT_NE(page.find("`" + std::string(metric.name)), std::string::npos) << metric.name;
  EXPECT_EQ(find_metric("seconds_generate")->unit, "s");
  EXPECT_EQ(find_metric("reward/format")->name, "reward/");
  EXPECT_EQ(find_metric("reward/"), nullptr);
  EXPECT_EQ(find_metric("nonsense"), nullptr);
}

}  // namespace
}  // namespace troupe
