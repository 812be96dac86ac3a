#include "core/metrics/report.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/metrics/chart.hpp"
#include "core/metrics/summary.hpp"
#include "tests/core/metrics/scratch_folder.hpp"

namespace troupe {
namespace {

const nlohmann::json kNone = nlohmann::json::object();

std::vector<StepMetrics> some_steps(uint64_t count) {
  std::vector<StepMetrics> steps;
  for (uint64_t i = 1; i <= count; ++i) {
    const double x = static_cast<double>(i);
    steps.push_back({i,
                     {{"time_s", 3 * x},
                      {"reward_mean", 1 - std::exp(-x / 20)},
                      {"reward/format", 0.5},
                      {"kl", x / 1000},
                      {"seconds_generate", 1.5},
                      {"seconds_update", 1.0},
                      {"seconds_step", 2.6},
                      {"my_own_metric", x}}});
  }
  return steps;
}

std::size_t count_of(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (auto at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST(Report, NeedsNoNetwork) {
  const std::string page = render_report("run", some_steps(40), {{"accuracy_before", 0.36}}, {{"model", "m"}}, kNone);
  for (const char* outside : {"http:", "https:", "src=", "@import", "url(", "<link"})
    EXPECT_EQ(page.find(outside), std::string::npos) << outside;
}

TEST(Report, ShowsACurveForEveryMetricThereIsAndNoneForOthers) {
  const std::string page = render_report("run", some_steps(40), kNone, kNone, kNone);
  for (const char* title : {"<b>Reward</b>", "<b>Reward by rule</b>", "<b>KL to the reference</b>",
                            "<b>Time per step</b>", "<b>my_own_metric</b>"})
    EXPECT_EQ(count_of(page, title), 1u) << title;
  EXPECT_EQ(page.find("<b>Entropy</b>"), std::string::npos);
  EXPECT_EQ(count_of(page, "<figure"), 5u);
  EXPECT_EQ(count_of(page, "<svg"), count_of(page, "</svg>"));
}

TEST(Report, ShowsTheAccuracyGained) {
  const nlohmann::json summary{{"accuracy_before", 0.36}, {"accuracy_after", 0.81}, {"note", "<script>"}};
  const std::string page = render_report("a<b>\"&", some_steps(3), summary, kNone, {{"environment", {{"cpu", "X&Y"}}}});
  EXPECT_NE(page.find("+45.0 points"), std::string::npos);
  EXPECT_NE(page.find("36 %"), std::string::npos);
  EXPECT_NE(page.find("<b>Held-out accuracy</b>"), std::string::npos);
  EXPECT_NE(page.find("a&lt;b&gt;&quot;&amp;"), std::string::npos);
  EXPECT_NE(page.find("X&amp;Y"), std::string::npos);
  EXPECT_EQ(count_of(page, "<script>"), 1u) << "only the page's own";
}

TEST(Report, IsWrittenFromTheRunFolder) {
  const ScratchFolder folder;
  EXPECT_THROW(write_report(folder.path()), std::runtime_error);
  MetricsLog log(folder / "metrics.jsonl", 0);
  write_report(folder.path());
  EXPECT_NE(text_of(folder / "report.html").find("No step was completed"), std::string::npos);
  for (const StepMetrics& step : some_steps(5)) log.write(step.step, step.values);
  merge_summary(folder.path(), {{"accuracy_after", 0.5}});
  write_text(folder / "topology.json", "{\"algorithm\": {\"type\": \"grpo\"}, \"model\": \"models/x\"}");
  write_report(folder.path());
  const std::string page = text_of(folder / "report.html");
  EXPECT_NE(page.find("grpo · models/x"), std::string::npos);
  EXPECT_NE(page.find("50 %"), std::string::npos);
}

TEST(Report, AveragesLongRunsDown) {
  const std::string page = render_report("run", some_steps(20'000), kNone, kNone, kNone);
  EXPECT_LT(page.size(), 600'000u);
}

TEST(Report, DrawsValuesThatAreMissingOrEqual) {
  auto steps = some_steps(3);
  steps[1].values.erase("kl");
  steps[2].values["kl"] = std::nan("");
  for (StepMetrics& step : steps) step.values["reward_mean"] = 0;
  const std::string page = render_report("run", steps, kNone, kNone, kNone);
  EXPECT_EQ(page.find("nan"), std::string::npos);
  EXPECT_EQ(page.find("inf"), std::string::npos);
}

TEST(Chart, TicksAreRoundAndCoverTheRange) {
  EXPECT_EQ(axis_ticks(0, 1, 4), (std::vector<double>{0, 0.25, 0.5, 0.75, 1}));
  const auto ticks = axis_ticks(-3, 17, 4);
  EXPECT_EQ(ticks, (std::vector<double>{-5, 0, 5, 10, 15, 20}));
  for (const auto& [low, high] : {std::pair{1e-9, 3e-9}, std::pair{0.031, 0.033}, std::pair{1e6, 9e6}}) {
    const auto some = axis_ticks(low, high, 4);
    EXPECT_LE(some.front(), low * 1.000001);
    EXPECT_GE(some.back(), high * 0.999999);
    EXPECT_LE(some.size(), 8u);
  }
}

// The average of many equal numbers differs from them by rounding.
TEST(Chart, TicksOfOneValueAndOfExtremesAreFewAndApart) {
  const double huge = std::numeric_limits<double>::max(), tiny = std::numeric_limits<double>::denorm_min();
  for (const auto& [low, high] :
       {std::pair{1.0, std::nextafter(1.0, 2.0)}, std::pair{-0.1, std::nextafter(-0.1, 0.0)}, std::pair{5.0, 5.0},
        std::pair{1e-320, 3e-320}, std::pair{0.0, tiny}, std::pair{0.0, 0.0}, std::pair{-huge, huge},
        std::pair{std::nextafter(huge, 0.0), huge}, std::pair{1.0, 1.0 + 1e-8}}) {
    const auto ticks = axis_ticks(low, high, 4);
    ASSERT_GE(ticks.size(), 2u) << low << " " << high;
    EXPECT_LE(ticks.size(), 8u) << low << " " << high;
    for (std::size_t i = 1; i < ticks.size(); ++i) EXPECT_LT(ticks[i - 1], ticks[i]) << low << " " << high;
  }
  const Chart flat{"Ratio", "", {1, 2, 3}, {{"ratio", {1.0, 1.0, std::nextafter(1.0, 2.0)}}}};
  EXPECT_LT(draw_chart(flat).size(), 10'000u);
}

TEST(Chart, NumbersAreShort) {
  EXPECT_EQ(format_number(0.123456), "0.1235");
  EXPECT_EQ(format_number(12345678), "12.35M");
  EXPECT_EQ(format_number(0), "0");
  EXPECT_EQ(format_number(-1e-6), "-1e-06");
}

}  // namespace
}  // namespace troupe
