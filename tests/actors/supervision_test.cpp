// The supervisor's policy on virtual time: events in, actions out.
#include "actors/supervision.hpp"

#include <gtest/gtest.h>

#include <csignal>

namespace troupe {
namespace {

using namespace std::chrono_literals;

std::string text_of(const Action& action) {
  struct {
    std::string operator()(const StartNode& a) {
      return "start " + a.node + " " + std::to_string(a.incarnation) + " " + std::to_string(a.epoch);
    }
    std::string operator()(const TellStop& a) { return "stop " + a.node; }
    std::string operator()(const SignalNode& a) { return "signal " + a.node + " " + std::to_string(a.number); }
    std::string operator()(const Tell&) { return ""; }
    std::string operator()(const EndRun& a) { return "end " + std::to_string(a.exit_code); }
  } visitor;
  return std::visit(visitor, action);
}

using Texts = std::vector<std::string>;

struct Policy : testing::Test {
  SupervisionPolicy policy{{{.name = "learner/0"}, {.name = "actor/0"}, {.name = "conductor/0", .drives = true}},
                           {.limit = 3, .window = 60s},
                           {.stop = 20s, .term = 3s},
                           1};
  Instant now{};
  std::string report;

  Texts texts(const std::vector<Action>& actions) {
    Texts all;
    for (const Action& action : actions) {
      if (const std::string text = text_of(action); !text.empty()) all.push_back(text);
      if (const auto* end = std::get_if<EndRun>(&action)) report = end->report;
    }
    return all;
  }
  Texts exit(const std::string& node, int code = 0, int signal = 0) {
    return texts(policy.exited(node, {code, signal}, "last words", now));
  }
  // Ticks every 100 ms; nodes in `beating` make progress meanwhile.
  Texts pass(Millis time, const std::vector<std::string>& beating) {
    Texts all;
    for (const Instant end = now + time; now < end;) {
      now += 100ms;
      for (const RoleStatus& known : policy.nodes()) {
        if (std::find(beating.begin(), beating.end(), known.node) == beating.end()) continue;
        RoleStatus status = known;
        status.phase = phase;
        status.progress = ++progress;
        policy.heartbeat(status, now);
      }
      for (const std::string& text : texts(policy.tick(now))) all.push_back(text);
    }
    return all;
  }
  std::string phase = "idle";
  uint64_t progress = 0;
  const std::vector<std::string> everyone{"learner/0", "actor/0", "conductor/0"};
};

TEST_F(Policy, StartsInOrder) {
  EXPECT_EQ(texts(policy.start(now)), (Texts{"start learner/0 1 1", "start actor/0 1 1", "start conductor/0 1 1"}));
  EXPECT_EQ(policy.state(), "starting");
  pass(100ms, everyone);
  EXPECT_EQ(policy.state(), "running");
}

TEST_F(Policy, RestartsWhatDiesAtOnceThenSlower) {
  policy.start(now);
  EXPECT_EQ(exit("actor/0", 0, SIGKILL), (Texts{"start actor/0 2 1"}));
  EXPECT_EQ(exit("actor/0", 3), Texts{});
  EXPECT_EQ(pass(200ms, everyone), Texts{});
  EXPECT_EQ(pass(100ms, everyone), (Texts{"start actor/0 3 1"}));
  EXPECT_EQ(exit("actor/0", 3), Texts{});
  EXPECT_EQ(pass(400ms, everyone), Texts{});
  EXPECT_EQ(pass(100ms, everyone), (Texts{"start actor/0 4 1"}));
  EXPECT_EQ(policy.restarts().at("actor/0"), 3U);
}

TEST_F(Policy, ForgetsOldRestarts) {
  policy.start(now);
  for (int i = 0; i < 10; ++i) {
    const Texts texts = exit("actor/0", 1);
    ASSERT_EQ(texts.size(), 1U) << i;
    pass(61s, everyone);
  }
}

TEST_F(Policy, OverTheLimitEndsTheRunWithTheFirstCause) {
  policy.start(now);
  for (int i = 0; i < 3; ++i) {
    exit("actor/0", 3);
    pass(1s, everyone);
  }
  EXPECT_EQ(exit("actor/0", 3), (Texts{"stop conductor/0"}));
  EXPECT_EQ(exit("conductor/0", 1), (Texts{"stop learner/0"}));
  EXPECT_EQ(exit("learner/0"), (Texts{"end 1"}));
  EXPECT_EQ(report,
            "the run has failed: actor/0: exit code 3; restarted 3 times within 60 s, no more\n  its last lines:\n"
            "    last words");
}

TEST_F(Policy, ARestartTellsTheLastWordsOfWhoExited) {
  policy.start(now);
  const auto told = [&](const ExitStatus& status, const std::string& lines) {
    for (const Action& action : policy.exited("actor/0", status, lines, now))
      if (const auto* tell = std::get_if<Tell>(&action)) return tell->text;
    return std::string();
  };
  EXPECT_EQ(told({1, 0}, "loads\ntroupe: no answer"),
            "actor/0: exit code 1 (troupe: no answer); restart 1 of 3 in 60 s");
  EXPECT_EQ(told({0, SIGKILL}, "loads"), "actor/0: signal 9 (Killed); restart 2 of 3 in 60 s, after 0.25 s");
}

TEST_F(Policy, WrongSettingsEndTheRunAtOnce) {
  policy.start(now);
  EXPECT_EQ(texts(policy.exited("actor/0", {kWrongSettings, 0}, "troupe: node 'actor': device 'cuda'", now)),
            (Texts{"stop conductor/0"}));
  EXPECT_EQ(policy.cause(), "actor/0: its settings are wrong (troupe: node 'actor': device 'cuda')");
  exit("conductor/0");
  EXPECT_EQ(exit("learner/0"), (Texts{"end 1"}));
  EXPECT_EQ(report,
            "the run has failed: actor/0: its settings are wrong\n  its last lines:\n"
            "    troupe: node 'actor': device 'cuda'");
}

TEST_F(Policy, LinesThatSayTheSameAreReportedOnce) {
  SupervisionPolicy strict({{.name = "judge/0", .on_failure = OnFailure::kStop}}, {}, {}, 1);
  strict.start(now);
  texts(strict.exited("judge/0", {1, 0}, "a\na\nb\na", now));
  EXPECT_EQ(report, "the run has failed: judge/0: exit code 1\n  its last lines:\n    a\n    b\n    a");
  EXPECT_EQ(strict.cause(), "judge/0: exit code 1 (a)");
}

TEST_F(Policy, TheDriversRestartRaisesTheEpoch) {
  policy.start(now);
  EXPECT_EQ(exit("conductor/0", 0, SIGKILL), (Texts{"start conductor/0 2 2"}));
  EXPECT_EQ(exit("actor/0", 0, SIGKILL), (Texts{"start actor/0 2 2"}));
}

TEST_F(Policy, TheDriversCleanEndIsTheRunsEnd) {
  policy.start(now);
  EXPECT_EQ(exit("conductor/0"), (Texts{"stop actor/0", "stop learner/0"}));
  EXPECT_EQ(exit("actor/0"), Texts{});
  EXPECT_EQ(exit("learner/0"), (Texts{"end 0"}));
}

TEST_F(Policy, AnotherNodesCleanEndIsNotExpected) {
  policy.start(now);
  EXPECT_EQ(exit("actor/0"), (Texts{"start actor/0 2 1"}));
}

TEST_F(Policy, StandingStillPastTheLeaseIsAborted) {
  policy.start(now);
  pass(1s, everyone);
  EXPECT_EQ(pass(4800ms, {"learner/0", "conductor/0"}), Texts{});
  EXPECT_EQ(pass(300ms, {"learner/0", "conductor/0"}), (Texts{"signal actor/0 6"}));
  EXPECT_EQ(pass(2s, {"learner/0", "conductor/0"}), (Texts{"signal actor/0 9"}));
  EXPECT_EQ(exit("actor/0", 0, SIGKILL), (Texts{"start actor/0 2 1"}));
}

TEST_F(Policy, EachPhaseHasItsOwnLease) {
  policy.start(now);
  phase = "generate";
  pass(1s, everyone);
  EXPECT_EQ(pass(29s, {"learner/0", "conductor/0"}), Texts{});
  EXPECT_EQ(pass(2s, {"learner/0", "conductor/0"}), (Texts{"signal actor/0 6"}));
}

TEST_F(Policy, ANodeThatNeverBeatsHasTheLeaseOfLoading) {
  policy.start(now);
  EXPECT_EQ(pass(119s, {"learner/0", "conductor/0"}), Texts{});
  EXPECT_EQ(pass(2s, {"learner/0", "conductor/0"}), (Texts{"signal actor/0 6"}));
}

TEST_F(Policy, SilenceIsAStoppedProcessWhateverItsPhase) {
  policy.start(now);
  phase = "load";  // may stand still for two minutes, but its heartbeats come from another thread
  pass(1s, everyone);
  for (int i = 0; i < 400; ++i) {
    now += 100ms;
    for (const RoleStatus& status : policy.nodes()) policy.heartbeat(status, now);
    ASSERT_EQ(texts(policy.tick(now)), Texts{});
  }
  EXPECT_EQ(pass(29s, {"learner/0", "conductor/0"}), Texts{});
  EXPECT_EQ(pass(2s, {"learner/0", "conductor/0"}), (Texts{"signal actor/0 6"}));
}

TEST_F(Policy, AHeartbeatOfADeadIncarnationCountsForNothing) {
  policy.start(now);
  pass(1s, everyone);
  exit("actor/0", 1);
  RoleStatus zombie{"actor/0", 1, "idle", 999, "", 0};
  policy.heartbeat(zombie, now);
  EXPECT_EQ(policy.nodes()[1].incarnation, 2U);
  EXPECT_EQ(policy.nodes()[1].progress, 0U);
}

TEST_F(Policy, ItsOwnStandstillIsNobodysFault) {
  policy.start(now);
  pass(1s, everyone);
  now += 600s;
  EXPECT_EQ(texts(policy.tick(now)), Texts{});
  EXPECT_EQ(pass(6s, {"learner/0", "conductor/0"}), (Texts{"signal actor/0 6"}));
}

TEST_F(Policy, StoppingGoesFromTheMessageToTheSignals) {
  policy.start(now);
  EXPECT_EQ(texts(policy.stop("interrupted", now)), (Texts{"stop conductor/0"}));
  EXPECT_EQ(pass(19800ms, {}), Texts{});
  EXPECT_EQ(pass(300ms, {}), (Texts{"signal conductor/0 15"}));
  EXPECT_EQ(exit("conductor/0", 0, SIGTERM), (Texts{"stop actor/0", "stop learner/0"}));
  EXPECT_EQ(exit("learner/0"), Texts{});
  EXPECT_EQ(pass(20100ms, {}), (Texts{"signal actor/0 15"}));
  EXPECT_EQ(pass(3s, {}), (Texts{"signal actor/0 9"}));
  EXPECT_EQ(exit("actor/0", 0, SIGKILL), (Texts{"end 1"}));  // the driver did not end well
}

TEST_F(Policy, AStopWaitsAsLongAsEverybodyMakesProgress) {
  policy.start(now);
  phase = "update";
  pass(1s, everyone);
  policy.stop("interrupted", now);
  EXPECT_EQ(pass(600s, everyone), Texts{});
  // The driver beats while it waits for a learner that hangs: what is left is the lease of the learner's phase.
  EXPECT_EQ(pass(29s, {"actor/0", "conductor/0"}), Texts{});
  EXPECT_EQ(pass(2s, {"actor/0", "conductor/0"}), (Texts{"signal conductor/0 15"}));
  EXPECT_EQ(pass(3s, {"actor/0", "conductor/0"}), (Texts{"signal conductor/0 9"}));
}

TEST_F(Policy, AStopDoesNotWaitForWhoHasDied) {
  policy.start(now);
  pass(1s, everyone);
  policy.stop("interrupted", now);
  pass(60s, everyone);
  EXPECT_EQ(exit("learner/0", 1), Texts{});
  EXPECT_EQ(pass(19s, {"actor/0", "conductor/0"}), Texts{});
  EXPECT_EQ(pass(2s, {"actor/0", "conductor/0"}), (Texts{"signal conductor/0 15"}));
}

TEST_F(Policy, AStopThatTakesLongTellsWhatItWaitsFor) {
  policy.start(now);
  phase = "update";
  pass(1s, everyone);
  policy.stop("interrupted", now);
  Texts told;
  for (int i = 0; i < 250; ++i) {
    now += 100ms;
    policy.heartbeat({"conductor/0", 1, "update", ++progress, "step 3", 0}, now);
    for (const Action& action : policy.tick(now))
      if (const auto* tell = std::get_if<Tell>(&action)) told.push_back(tell->text);
  }
  EXPECT_EQ(told, (Texts{"conductor/0 has been stopping for 10 s: update, step 3",
                         "conductor/0 has been stopping for 20 s: update, step 3"}));
}

TEST_F(Policy, ASecondStopKillsAtOnce) {
  policy.start(now);
  policy.stop("interrupted", now);
  EXPECT_EQ(texts(policy.stop("interrupted", now)),
            (Texts{"signal learner/0 9", "signal actor/0 9", "signal conductor/0 9"}));
}

TEST_F(Policy, AFailureOfANodeThatMustNotFailEndsTheRun) {
  SupervisionPolicy strict({{.name = "judge/0", .on_failure = OnFailure::kStop}}, {}, {}, 1);
  strict.start(now);
  EXPECT_EQ(texts(strict.exited("judge/0", {0, SIGSEGV}, "", now)), (Texts{"end 1"}));
  EXPECT_EQ(report, "the run has failed: judge/0: signal 11 (Segmentation fault)");
}

}  // namespace
}  // namespace troupe
