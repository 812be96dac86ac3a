#include "launcher/run_view.hpp"

#include <gtest/gtest.h>

#include "core/metrics/summary.hpp"
#include "tests/core/metrics/scratch_folder.hpp"
#include "tests/launcher/pretend_cast.hpp"

namespace troupe {
namespace {

using namespace std::chrono_literals;

class View : public testing::Test {
 protected:
  View() : topology_(topology_from(good_topology(), JsonPath("t"))), view_(topology_, folder_.path(), start_) {
    topology_.run.name = "x";
  }

  void write_steps(uint64_t count) {
    MetricsLog log(folder_ / "metrics.jsonl", 0);
    for (uint64_t i = 1; i <= count; ++i)
      log.write(i, {{"time_s", 3.0 * static_cast<double>(i)},
                    {"reward_mean", 0.1 * static_cast<double>(i)},
                    {"kl", 0.0125},
                    {"tokens_per_s_generate", 312.4}});
  }
  RunStatus status(const std::string& phase, const std::string& detail = "") {
    RunStatus s{"x", "running", {}, {{"actor/0", 2}}};
    s.nodes.push_back({"actor/0", 1, phase, 1, detail, 0});
    s.nodes.push_back({"learner/0", 1, "idle", 1, "", 0});
    return s;
  }
  static int columns(const std::string& line) {
    int count = 0;
    for (unsigned char c : line) count += (c & 0xC0) != 0x80;
    return count;
  }
  std::string text(const FrameOptions& options, ViewTime now) {
    std::string out;
    for (const std::string& line : view_.frame(options, now)) out += line + "\n";
    return out;
  }

  const ViewTime start_{};
  ScratchFolder folder_;
  Topology topology_;
  RunView view_;
};

TEST_F(View, ShowsStepsFiguresAndNodes) {
  write_steps(4);
  merge_summary(folder_.path(), {{"accuracy_before", 0.36}});
  EXPECT_EQ(view_.refresh().size(), 4u);
  view_.take(status("generate", "31 of 64 answers"), start_ + 2s);
  const std::string shown = text({100, 24, false, true}, start_ + 14s);
  for (const char* part : {"step 4 of 5", "█", " 80 %  0:14, 0:03 left", "reward 0.4", "▁", "kl 0.0125",
                           "312.4 tokens/s", "accuracy before 36 %", "actor/0", "generate", " 12.0 s",
                           "[restarts 2] 31 of 64 answers", "conductor/0", "not started", "grpo", "running"})
    EXPECT_NE(shown.find(part), std::string::npos) << part << " in\n" << shown;
}

TEST_F(View, ShowsWhatIsGotReadyBeforeTheFirstStep) {
  view_.prepare("finding the lines of big.jsonl", 0.01, start_ + 1s);
  EXPECT_EQ(view_.preparing_line(), "finding the lines of big.jsonl: 0 %");
  EXPECT_EQ(view_.preparing_line(), std::nullopt);
  view_.prepare("finding the lines of big.jsonl", 0.25, start_ + 11s);
  EXPECT_EQ(view_.preparing_line(), "finding the lines of big.jsonl: 20 %");
  const std::string shown = text({100, 24, false, true}, start_ + 11s);
  EXPECT_NE(shown.find("finding the lines of big.jsonl  ██"), std::string::npos) << shown;
  EXPECT_NE(shown.find(" 25 %  0:10, 0:30 left"), std::string::npos) << shown;
  for (const int width : {20, 40, 80})
    for (const std::string& line : view_.frame({width, 24, false, true}, start_ + 12s)) EXPECT_LE(columns(line), width);
  view_.take(status("train"), start_ + 12s);
  EXPECT_EQ(text({100, 24, false, true}, start_ + 12s).find("big.jsonl"), std::string::npos);
  EXPECT_EQ(view_.preparing_line(), std::nullopt);
}

TEST_F(View, AJobsBatchesAreCountedBetweenItsLines) {
  write_steps(2);
  view_.refresh();
  RunStatus job{"x", "running", {}, {}};
  job.nodes.push_back({"trainer/0", 1, "train", 4, "batch 4 of 5", 0});
  view_.take(job, start_ + 7s);
  const std::string shown = text({100, 24, false, true}, start_ + 14s);
  EXPECT_NE(shown.find("step 4 of 5"), std::string::npos) << shown;
  EXPECT_NE(shown.find(" 80 %  0:14, 0:03 left"), std::string::npos) << shown;
}

TEST_F(View, NeverExceedsTheTerminal) {
  write_steps(4);
  view_.refresh();
  view_.take(status("generate", std::string(300, 'x')), start_);
  for (int width : {20, 33, 40, 61, 80, 132, 300})
    for (int height : {3, 5, 8, 24}) {
      const auto lines = view_.frame({width, height, false, true}, start_ + 1s);
      EXPECT_LT(static_cast<int>(lines.size()), std::max(height, 2)) << height;
      for (const std::string& line : lines) EXPECT_LE(columns(line), width) << line;
    }
}

TEST_F(View, TellsHowManyNodesDoNotFit) {
  const auto lines = view_.frame({80, 6, false, true}, start_);
  EXPECT_EQ(lines.size(), 5u);
  EXPECT_EQ(lines.back(), "and 4 more");
}

TEST_F(View, KeepsToAsciiAndWithoutColourWhenAsked) {
  write_steps(3);
  view_.refresh();
  view_.take(status("generate"), start_);
  for (const char c : text({80, 24, false, false}, start_)) EXPECT_TRUE(c == '\n' || (c >= 32 && c < 127));
  EXPECT_NE(text({80, 24, true, true}, start_).find("\033[1m"), std::string::npos);
}

TEST_F(View, ControlCharactersOfARoleNeverReachTheTerminal) {
  view_.take(status("gen\033[2J", "a\nb\tc\x07"), start_);
  const std::string shown = text({80, 24, false, true}, start_);
  EXPECT_EQ(shown.find('\033'), std::string::npos);
  EXPECT_EQ(shown.find('\x07'), std::string::npos);
  EXPECT_NE(shown.find("a b c"), std::string::npos);
}

TEST_F(View, CountsSecondsWithinAPhase) {
  view_.take(status("load"), start_);
  view_.take(status("load", "more"), start_ + 5s);
  EXPECT_NE(text({80, 24, false, true}, start_ + 7s).find("  7.0 s"), std::string::npos);
  view_.take(status("generate"), start_ + 8s);
  EXPECT_NE(text({80, 24, false, true}, start_ + 9s).find("  1.0 s"), std::string::npos);
}

TEST_F(View, PlainLinesSayTheStepAndThePhasesBeforeTheFirst) {
  view_.take(status("load", "model.gguf"), start_);
  EXPECT_EQ(view_.phase_lines(), std::vector<std::string>{"actor/0: load (model.gguf)"});
  EXPECT_TRUE(view_.phase_lines().empty());
  write_steps(3);
  const auto steps = view_.refresh();
  view_.take(status("generate"), start_);
  EXPECT_TRUE(view_.phase_lines().empty());
  EXPECT_EQ(view_.step_line(steps.back()), "step 3/5  reward 0.3  kl 0.0125  312.4 tokens/s  left 0:06");
}

TEST(Text, FitsToColumns) {
  EXPECT_EQ(fit("abcdef", 6, true), "abcdef");
  EXPECT_EQ(fit("abcdefg", 6, true), "abcde…");
  EXPECT_EQ(fit("äöüß", 3, true), "äö…");
  EXPECT_EQ(fit("abc", 2, false), "a~");
  EXPECT_EQ(fit("abc", 0, true), "");
}

TEST(Text, ClocksAndCurves) {
  EXPECT_EQ(clock_text(5), "0:05");
  EXPECT_EQ(clock_text(3723), "1:02:03");
  EXPECT_EQ(clock_text(-1), "-");
  EXPECT_EQ(sparkline({0, 0.5, 1}, 10, true), "▁▄█");
  EXPECT_EQ(sparkline({0, 1, 2, 3}, 2, false), "_#");
  EXPECT_EQ(sparkline({2, 2}, 5, true), "▄▄");
  EXPECT_EQ(sparkline({}, 5, true), "");
}

}  // namespace
}  // namespace troupe
