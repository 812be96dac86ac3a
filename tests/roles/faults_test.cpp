// Roles killed, stopped and hung at named points of their code, all at once, again and again: the run must end with the
// same bits as the undisturbed one, and its books must balance.
#include <signal.h>
#include <sys/mount.h>
#include <sys/statvfs.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "actors/fault_hooks.hpp"
#include "core/metrics/metrics_log.hpp"
#include "core/metrics/summary.hpp"
#include "roles/ledger.hpp"
#include "tests/roles/run_fixture.hpp"
#include "tests/support/alive.hpp"

namespace troupe {
namespace {

using namespace std::chrono_literals;

constexpr int kSteps = 5;
const std::vector<std::string> kShort{"nodes.conductor.config.steps=" + std::to_string(kSteps),
                                      "nodes.conductor.config.checkpoint_every=2"};

std::vector<std::string> with(std::vector<std::string> sets, const std::vector<std::string>& more) {
  sets.insert(sets.end(), more.begin(), more.end());
  return sets;
}

void expect_unharmed(const TroupeRun& run, int steps = kSteps) {
  EXPECT_NE(run.weights_digest(), "") << run.output();
  EXPECT_EQ(run.weights_digest(), undisturbed(steps).weights_digest()) << run.output();
  const Ledger ledger = check_ledger(run.folder());
  EXPECT_EQ(ledger.steps, static_cast<uint64_t>(steps));
  EXPECT_TRUE(ledger.violations.empty()) << ::testing::PrintToString(ledger.violations);
}

bool gone_within(pid_t pid, std::chrono::seconds most) {
  for (auto until = std::chrono::steady_clock::now() + most; std::chrono::steady_clock::now() < until;
       std::this_thread::sleep_for(20ms))
    if (!alive(pid)) return true;
  return !alive(pid);
}

// ---- every role in every phase --------------------------------------------------------------------------------------

struct Case {
  std::string node, phase;
  std::string fault(int passage) const { return node + ":" + phase + ":" + std::to_string(passage) + ":kill"; }
};

std::vector<Case> every_case() {
  std::vector<Case> out;
  for (const char* node : {"actor/0", "learner/0", "reference/0", "reward/0", "conductor/0"})
    for (const FaultPhase& phase : kFaultPhases) {
      const std::string role = std::string(node).substr(0, std::string(node).find('/'));
      // The conductor serves nobody, and one learner has no group.
      const bool serves =
          role != "conductor" || (phase.name != "idle" && phase.name != "request" && phase.name != "reply");
      if ((phase.role == "*" || phase.role == role) && serves && phase.name != "collective")
        out.push_back({node, std::string(phase.name)});
    }
  return out;
}

// TROUPE_FAULT_CASES=all runs every one; else sixteen, drawn by TROUPE_FAULT_SEED.
TEST(KilledAt, EveryPhaseOfEveryRoleItIsReplacedAndTheWeightsAreTheSameBits) {
  const char* which = std::getenv("TROUPE_FAULT_CASES");
  const char* seed = std::getenv("TROUPE_FAULT_SEED");
  std::mt19937_64 random(seed ? std::strtoull(seed, nullptr, 10) : 1);
  std::vector<Case> cases = every_case();
  ASSERT_GE(cases.size(), 40u);
  std::shuffle(cases.begin(), cases.end(), random);
  if (!which || std::string(which) != "all") cases.resize(16);
  for (const Case& c : cases) {
    const bool once = c.phase == "start" || c.phase == "load";
    const std::string fault = c.fault(once ? 1 : 1 + static_cast<int>(random() % 2));
    SCOPED_TRACE(fault);
    std::string name = "killed-" + c.node + "-" + c.phase;
    std::replace(name.begin(), name.end(), '/', '-');
    TroupeRun run(name, "grpo-tiny-local.json", kShort, fault);
    ASSERT_EQ(run.wait(), 0) << run.output();
    EXPECT_NE(run.log_of(c.node).find("fault on purpose: " + c.node + "#1, " + c.phase), std::string::npos)
        << "the fault was never met:\n"
        << run.log_of(c.node);
    EXPECT_NE(run.output().find("started " + c.node + ", incarnation 2"), std::string::npos) << run.output();
    expect_unharmed(run);
  }
}

// The step is trained, nobody knows; its replacement dies once more with a checkpoint half made.
TEST(Faults, ALearnerKilledBetweenStepAndCheckpointEndsWithTheSameBits) {
  TroupeRun run("between", "grpo-tiny-local.json", kShort,
                "learner/0:updated:3:kill;learner/0#2:checkpoint.rename:1:kill;learner/0#3:checkpoint.write:2:kill");
  ASSERT_EQ(run.wait(), 0) << run.output();
  EXPECT_NE(run.output().find("started learner/0, incarnation 4"), std::string::npos) << run.output();
  expect_unharmed(run);
}

// Some of the batch's gradients are summed, or its first optimizer step is made: nobody goes on from there.
TEST(Faults, AnUpdateThatBreaksOffLeavesTheWeightsTheSameBits) {
  const std::vector<std::string> sets = with(kShort, {"nodes.learner.config.mini_batches=2"});
  TroupeRun whole("mini-batches", "grpo-tiny-local.json", sets);
  ASSERT_EQ(whole.wait(), 0) << whole.output();
  TroupeRun run("broken-off", "grpo-tiny-local.json", sets,
                "learner/0:microbatch:4:throw;learner/0#2:microbatch:3:throw");
  ASSERT_EQ(run.wait(), 0) << run.output();
  EXPECT_NE(run.log_of("learner/0").find("update step 2 broke off: fault on purpose"), std::string::npos)
      << run.log_of("learner/0");
  EXPECT_NE(run.output().find("started learner/0, incarnation 3"), std::string::npos) << run.output();
  EXPECT_EQ(run.output().find("started conductor/0, incarnation 2"), std::string::npos) << run.output();
  EXPECT_EQ(run.weights_digest(), whole.weights_digest());
}

// ---- stopped and hung -----------------------------------------------------------------------------------------------

class HeldUp : public ::testing::TestWithParam<const char*> {};

TEST_P(HeldUp, IsFoundByItsLeaseAndReplaced) {
  const std::string fault = GetParam();
  const std::string node = fault.substr(0, fault.find(':'));
  std::string name = "held-" + fault;
  for (char& c : name)
    if (c == '/' || c == ':') c = '-';
  TroupeRun run(name, "grpo-tiny-local.json", with(kShort, {"restarts.lease_s=5"}), fault);
  ASSERT_EQ(run.wait(), 0) << run.output();
  EXPECT_NE(run.log_of(node).find("fault on purpose"), std::string::npos) << run.log_of(node);
  EXPECT_NE(run.output().find(node + ": no "), std::string::npos) << "its lease is not named:\n" << run.output();
  EXPECT_NE(run.output().find("started " + node + ", incarnation 2"), std::string::npos) << run.output();
  expect_unharmed(run);
}
INSTANTIATE_TEST_SUITE_P(AtAPoint, HeldUp,
                         ::testing::Values("actor/0:generate:5:stop", "actor/1:generate:5:spin",
                                           "learner/0:update:2:spin", "reference/0:request:2:stop",
                                           "reward/0:request:3:spin", "conductor/0:journal.synced:2:stop",
                                           "conductor/0:journal.sync:3:spin"),
                         [](const auto& info) { return "Case" + std::to_string(info.index); });

TEST(Faults, AZombieIsDeadBeforeItIsReplacedAndWakingItChangesNothing) {
  TroupeRun run("zombie", "grpo-tiny-local.json", with(kShort, {"restarts.lease_s=5"}),
                "conductor/0:journal.sync:2:stop");
  ASSERT_TRUE(run.wait_for("conductor/0: no "));
  const pid_t zombie = run.pid_of("conductor/0");
  ::kill(zombie, SIGCONT);  // its journal is open, its record unsynced
  EXPECT_TRUE(gone_within(zombie, 10s));
  ASSERT_EQ(run.wait(), 0) << run.output();
  EXPECT_FALSE(alive(zombie));
  expect_unharmed(run);
}

// ---- again and again ------------------------------------------------------------------------------------------------

TEST(Faults, AConductorKilledAgainAndAgainHarmsNobodyElse) {
  TroupeRun run("conductor-again", "grpo-tiny-local.json", with(kShort, {"restarts.limit=100", "restarts.window_s=1"}),
                "conductor/0#*:journal.synced:2:kill");  // opening the journal is one, so every life makes one step
  ASSERT_EQ(run.wait(), 0) << run.output();
  EXPECT_NE(run.output().find("started conductor/0, incarnation 5"), std::string::npos) << run.output();
  for (const char* other : {"actor/0", "actor/1", "learner/0", "reference/0", "reward/0"})
    EXPECT_EQ(run.output().find("started " + std::string(other) + ", incarnation 2"), std::string::npos)
        << other << " was restarted with the conductor:\n"
        << run.output();
  expect_unharmed(run);
}

// Cut at random moments, resumed each time.
TEST(Faults, AfterPowerCutsTheRunEndsWithTheSameBits) {
  std::mt19937_64 random(9);
  TroupeRun run("power-cuts", "grpo-tiny-local.json", kShort);
  int code = -SIGKILL;
  for (int cut = 0; cut < 3 && code == -SIGKILL; ++cut) {
    const std::size_t said = run.output().size();
    if (cut > 0) run.resume();
    ASSERT_TRUE(run.wait_for("started conductor/0", 60, cut > 0 ? said : 0));
    std::this_thread::sleep_for(std::chrono::milliseconds(300 + random() % 1500));
    run.signal(SIGKILL);
    code = run.wait();  // 0: it was faster
  }
  if (code == -SIGKILL) {
    run.resume();
    code = run.wait();
  }
  EXPECT_EQ(code, 0) << run.output();
  expect_unharmed(run);
}

// A record torn in the middle by the cut itself.
TEST(Faults, ATornRecordIsCutOffAndItsStepMadeAgain) {
  TroupeRun run("torn-record", "grpo-tiny-local.json", kShort, "conductor/0:journal.write:3:stop");
  ASSERT_TRUE(run.wait_for_step(2));
  for (int i = 0; i < 200 && run.log_of("conductor/0").find("fault on purpose") == std::string::npos; ++i)
    std::this_thread::sleep_for(50ms);
  run.signal(SIGKILL);
  EXPECT_EQ(run.wait(), -SIGKILL);
  for (int i = 0; i < 200 && alive(run.pid_of("conductor/0")); ++i) std::this_thread::sleep_for(20ms);
  EXPECT_GT(read_ledger(run.folder()).torn_bytes, 0u) << "nothing was torn: the test tests nothing";
  run.resume();
  ASSERT_EQ(run.wait(), 0) << run.output();
  expect_unharmed(run);
}

// ---- no room --------------------------------------------------------------------------------------------------------

// A small file system of its own, filled to the brim while the run is at work.
TEST(Faults, AFullDiskHoldsTheRunUpUntilThereIsRoom) {
  const std::filesystem::path mount = TinyWorld::get().folder / "small-disk";
  std::filesystem::create_directory(mount);
  if (::mount("tmpfs", mount.c_str(), "tmpfs", 0, "size=48m") != 0)
    GTEST_SKIP() << "no right to mount a file system here";
  struct Unmount {
    std::filesystem::path path;
    ~Unmount() { ::umount2(path.c_str(), MNT_DETACH); }
  } const unmount{mount};
  {
    // Slowed down, so that the disk is full in the middle: before the first step, and before the third.
    TroupeRun run("full", "grpo-tiny-local.json", kShort, "learner:update:*:delay=500", mount);
    std::size_t said = 0;
    for (const int step : {0, 2}) {
      ASSERT_TRUE(step == 0 ? run.wait_for("started conductor/0") : run.wait_for_step(step));
      std::ofstream filler(mount / "filler", std::ios::binary);
      const std::string block(4096, 'x');
      while (filler.write(block.data(), static_cast<std::streamsize>(block.size())).flush()) {
      }
      ASSERT_TRUE(run.wait_for("disk_full (no space left", 60, said));
      std::this_thread::sleep_for(3s);  // a crash loop would show
      said = run.output().size();
      std::filesystem::remove(mount / "filler");
    }
    ASSERT_EQ(run.wait(), 0) << run.output();
    EXPECT_EQ(run.output().find("; restart "), std::string::npos) << run.output();
    expect_unharmed(run);
  }
}

// ---- no way on ------------------------------------------------------------------------------------------------------

TEST(Faults, ACrashLoopEndsTheRunAndItsFirstCauseIsToldLast) {
  const auto began = std::chrono::steady_clock::now();
  TroupeRun run("crash-loop-of-start", "grpo-tiny-local.json", kShort, "reward/0#*:load:1:exit");
  EXPECT_EQ(run.wait(90), 1) << run.output();
  EXPECT_LT(std::chrono::steady_clock::now() - began, 90s);
  const std::string text = run.output();
  EXPECT_NE(text.find("restart 5 of 5 in 60 s"), std::string::npos) << text;
  EXPECT_EQ(text.find("restart 6"), std::string::npos) << text;
  const std::size_t cause = text.rfind("fault on purpose: reward/0");
  ASSERT_NE(cause, std::string::npos) << text;
  EXPECT_GT(cause, text.rfind("has ended")) << "something is said after the cause:\n" << text;
  EXPECT_EQ(read_summary(run.folder()).value("state", ""), "failed");
}

TEST(Faults, AMalformedFaultIsOneClearErrorBeforeAnythingStarts) {
  TroupeRun run("malformed", "grpo-tiny-local.json", kShort, "learner/0:updat:1:kill");
  EXPECT_EQ(run.wait(), 1);
  EXPECT_NE(run.output().find("troupe: TROUPE_FAULTS: 'learner/0:updat:1:kill': expected a phase"), std::string::npos)
      << run.output();
  EXPECT_EQ(run.output().find("started"), std::string::npos);
}

}  // namespace
}  // namespace troupe
