#include "actors/fault_hooks.hpp"

#include <gtest/gtest.h>

#include <csignal>
#include <stdexcept>
#include <thread>

namespace troupe {
namespace {

using Clock = std::chrono::steady_clock;

std::string refusal_of(const std::string& text) {
  try {
    parse_faults(text);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "";
}

// What a process of this node suffers on its way past some points.
void live(const std::string& faults, const std::string& node, uint64_t incarnation) {
  ask_for_faults(parse_faults(faults));
  name_fault_points(node, incarnation);
  for (int i = 0; i < 3; ++i) fault_point("update");
  fault_point("publish");
  bool flipped = false;
  fault_point("updated", [&] { flipped = true; });
  std::_Exit(flipped ? 5 : 0);
}
const auto kUnharmed = ::testing::ExitedWithCode(0);

TEST(FaultHooks, ReadsEveryPartOfAFault) {
  const auto faults = parse_faults("learner/0:update:2:kill;actor#3:generate:*:delay=20;*#*:message:1:delay~7@9;");
  ASSERT_EQ(faults.size(), 3u);
  EXPECT_EQ(faults[0].node, "learner/0");
  EXPECT_EQ(faults[0].incarnation, 1u);
  EXPECT_EQ(faults[0].count, 2u);
  EXPECT_EQ(faults[0].action, FaultAction::kKill);
  EXPECT_EQ(faults[1].incarnation, 3u);
  EXPECT_EQ(faults[1].count, 0u);
  EXPECT_EQ(faults[1].delay.count(), 20);
  EXPECT_EQ(faults[2].incarnation, 0u);
  EXPECT_EQ(faults[2].action, FaultAction::kRandomDelay);
  EXPECT_EQ(faults[2].seed, 9u);
}

TEST(FaultHooks, RefusesWhatItCannotReadInOneLineThatNamesIt) {
  for (const char* text :
       {"learner/0:update:2", "learner/0:update:2:kill:now", ":update:1:kill", "a#0:update:1:kill", "a#x:update:1:kill",
        "a:uptade:1:kill", "a:update:0:kill", "a:update:-1:kill", "a:update:99999999999999999999:kill",
        "a:update:1:burn", "a:update:1:delay", "a:update:1:delay=", "a:update:1:delay=5@1", "a:update:1:delay~5@",
        "a:update:1:delay=99999999", "a:update:1:flip"}) {
    const std::string said = refusal_of(std::string("b:update:1:kill;") + text);
    EXPECT_NE(said.find(std::string("TROUPE_FAULTS: '") + text + "': expected "), said.npos) << text << " -> " << said;
    EXPECT_EQ(said.find('\n'), said.npos);
  }
  EXPECT_NE(refusal_of("a:uptade:1:kill").find("journal.synced"), std::string::npos) << "the phases are not listed";
}

TEST(FaultHooksDeathTest, KillsAtTheNthPassageOfTheNodeMeant) {
  EXPECT_EXIT(live("learner/0:update:2:kill", "learner/0", 1), ::testing::KilledBySignal(SIGKILL), "update, passage 2");
  EXPECT_EXIT(live("learner:update:3:exit", "learner/0", 1), ::testing::ExitedWithCode(70), "update, passage 3");
  EXPECT_EXIT(live("*:publish:1:exit", "learner/0", 1), ::testing::ExitedWithCode(70), "publish, passage 1");
  EXPECT_EXIT(live("learner/0:updated:1:flip", "learner/0", 1), ::testing::ExitedWithCode(5),
              "updated, passage 1: flip");
  EXPECT_EXIT(live("supervisor:publish:1:exit", "supervisor", 1), ::testing::ExitedWithCode(70), "");
  EXPECT_EXIT(live("learner/0:update:4:kill", "learner/0", 1), kUnharmed, "");
  EXPECT_EXIT(live("learner/1:update:1:kill;actor:update:1:kill", "learner/0", 1), kUnharmed, "");
  EXPECT_EXIT(live("*:update:1:kill", "supervisor", 1), kUnharmed, "");
}

TEST(FaultHooksDeathTest, AReplacementDoesNotRepeatTheFaultUnlessAskedTo) {
  EXPECT_EXIT(live("learner/0:update:1:exit", "learner/0", 2), kUnharmed, "");
  EXPECT_EXIT(live("learner/0#2:update:1:exit", "learner/0", 2), ::testing::ExitedWithCode(70), "");
  EXPECT_EXIT(live("learner/0#2:update:1:exit", "learner/0", 1), kUnharmed, "");
  EXPECT_EXIT(live("learner/0#*:update:1:exit", "learner/0", 7), ::testing::ExitedWithCode(70), "");
}

TEST(FaultHooks, ADelayHoldsTheThreadThatPasses) {
  ask_for_faults(parse_faults("actor/0:generate:2:delay=60"));
  std::thread([] {
    fault_point("generate");  // a thread without a name is nobody's
    name_fault_points("actor/0", 1);
    fault_point("generate");
    const auto before = Clock::now();
    fault_point("generate");
    EXPECT_GE(Clock::now() - before, std::chrono::milliseconds(60));
  }).join();
  ask_for_faults({});
}

}  // namespace
}  // namespace troupe
