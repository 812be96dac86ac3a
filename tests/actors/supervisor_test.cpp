// The supervisor with real processes that are killed, hang and freeze.
#include "actors/supervisor.hpp"

#include <gtest/gtest.h>

#include <csignal>
#include <fstream>
#include <thread>

#include "actors/handle.hpp"
#include "tests/actors/scratch.hpp"
#include "tests/support/alive.hpp"

namespace troupe {
namespace {

using namespace std::chrono_literals;

struct Supervised : testing::Test {
  Scratch scratch;
  std::string report;

  NodeProcess entry(const std::string& node, const std::string& mode, const std::string& argument = "") {
    NodeProcess entry;
    entry.node.name = node;
    entry.node.drives = node == "conductor/0";
    entry.node.leases.by_phase = {{"load", 60s}, {"idle", 20s}, {"wait", 60s}};
    entry.process.argv = {TEST_NODE, mode, scratch.path(), node};
    if (!argument.empty()) entry.process.argv.push_back(argument);
    entry.process.log_path = scratch.path() + "/" + mode + ".log";
    return entry;
  }
  SupervisorOptions options(std::vector<NodeProcess> nodes) {
    SupervisorOptions options;
    options.nodes = std::move(nodes);
    options.restarts = {.limit = 2, .window = 60s};
    options.stop_times = {.stop = 1s, .term = 300ms};
    options.self.node = "supervisor/0";
    options.self.run = "test";
    options.self.endpoint = "ipc://" + scratch.path() + "/supervisor-0";
    options.self.peers = {{"echo/0", {"ipc://" + scratch.path() + "/echo-0", ""}},
                          {"conductor/0", {"ipc://" + scratch.path() + "/conductor-0", ""}}};
    options.on_event = [this](const std::string& line) { report = line; };
    return options;
  }
  int run(std::vector<NodeProcess> nodes) { return Supervisor(options(std::move(nodes))).run(); }
};

TEST_F(Supervised, ARunEndsWhenItsDriverIsDone) {
  auto settings = options({entry("echo/0", "echo"), entry("conductor/0", "drive", "hello")});
  settings.stop_times.stop = 20s;  // both listen
  EXPECT_EQ(Supervisor(std::move(settings)).run(), 0);
  EXPECT_EQ(scratch.read("handled"), "hello 1\n");
  EXPECT_EQ(scratch.read("stopped"), "the run is done\n");
}

TEST_F(Supervised, AKilledRoleIsReplacedAndTheRequestAnsweredOncePerIncarnation) {
  EXPECT_EQ(run({entry("echo/0", "echo"), entry("conductor/0", "drive", "die")}), 0);
  EXPECT_EQ(scratch.read("handled"), "die 1\ndie 2\n");
}

TEST_F(Supervised, AHungHandlerBehindALivingSocketIsReplaced) {
  auto echo = entry("echo/0", "echo");
  echo.node.leases.by_phase["echo"] = 2s;
  EXPECT_EQ(run({echo, entry("conductor/0", "drive", "hang")}), 0);
  EXPECT_EQ(scratch.read("handled"), "hang 1\nhang 2\n");
}

TEST_F(Supervised, AFrozenRoleIsReplaced) {
  auto echo = entry("echo/0", "echo");
  echo.node.leases.otherwise = 2s;  // of silence
  EXPECT_EQ(run({echo, entry("conductor/0", "drive", "freeze")}), 0);
  EXPECT_EQ(scratch.read("handled"), "freeze 1\nfreeze 2\n");
}

TEST_F(Supervised, ARoleThatKeepsDyingEndsTheRunWithItsLastWords) {
  std::ofstream(scratch.path() + "/fail.log") << "of an earlier start\n";
  EXPECT_EQ(run({entry("echo/0", "fail"), entry("conductor/0", "drive", "x")}), 1);
  EXPECT_EQ(report,
            "the run has failed: echo/0: exit code 3; restarted 2 times within 60 s, no more\n  its last lines:\n"
            "    the model is not there");
}

TEST_F(Supervised, AProgramThatCannotBeStartedIsNamed) {
  auto missing = entry("echo/0", "echo");
  missing.process.argv[0] = "/no/such/program";
  missing.node.on_failure = OnFailure::kStop;
  EXPECT_EQ(run({missing}), 1);
  EXPECT_NE(report.find("/no/such/program: can't be started: No such file or directory"), std::string::npos) << report;
}

TEST_F(Supervised, StopsOnRequestAlsoWhoDoesNotListen) {
  auto settings = options({entry("deaf/0", "deaf"), entry("echo/0", "echo")});
  settings.stop_times.stop = 3s;  // the deaf one's SIGTERM must not come before the other's end
  Supervisor supervisor(std::move(settings));
  std::thread impatient([&] {
    while (scratch.read("pid").empty() || !std::filesystem::exists(scratch.path() + "/echo-0"))
      std::this_thread::sleep_for(20ms);
    supervisor.request_stop("interrupted");
  });
  EXPECT_EQ(supervisor.run(), 0);
  impatient.join();
  EXPECT_EQ(scratch.read("stopped"), "interrupted\n");
}

TEST_F(Supervised, AStopMessageStopsTheRunAndStatusTellsOfIt) {
  auto settings = options({entry("echo/0", "echo")});
  settings.stop_times.stop = 20s;  // it listens
  std::vector<RunStatus> seen;
  settings.on_status = [&](const RunStatus& status) { seen.push_back(status); };
  Supervisor supervisor(std::move(settings));
  std::thread visitor([&] {
    NodeOptions cli;
    cli.node = "cli/1";
    cli.run = "test";
    cli.epoch = 0;
    cli.peers = {{"supervisor/0", {"ipc://" + scratch.path() + "/supervisor-0", ""}}};
    SocketMailbox mailbox(cli);
    const Handle<SupervisorFace> handle(mailbox, "supervisor/0");
    while (handle.ask(AskRun{}, {.deadline = 10s}).get().state != "running") std::this_thread::sleep_for(20ms);
    handle.ask(Stop{"asked from outside"}, {.deadline = 10s}).get();
  });
  EXPECT_EQ(supervisor.run(), 0);
  visitor.join();
  EXPECT_EQ(scratch.read("stopped"), "asked from outside\n");
  ASSERT_FALSE(seen.empty());
  EXPECT_EQ(seen.back().state, "stopping");
  EXPECT_EQ(seen.back().nodes.at(0).node, "echo/0");
}

TEST_F(Supervised, NobodyOutlivesAKilledLauncher) {
  pid_t orphan = 0;
  {
    Process launcher = Process::spawn({.argv = {TEST_NODE, "launcher", scratch.path(), "supervisor/0"}});
    while (scratch.read("pid").empty()) std::this_thread::sleep_for(20ms);
    orphan = static_cast<pid_t>(std::stol(scratch.read("pid")));
    ASSERT_TRUE(alive(orphan));
    kill(launcher.pid(), SIGKILL);
    while (!launcher.poll()) std::this_thread::sleep_for(5ms);
  }
  for (int i = 0; i < 1000 && alive(orphan); ++i) std::this_thread::sleep_for(10ms);
  EXPECT_FALSE(alive(orphan));
}

TEST(ProcessTest, TellsHowAProcessEnded) {
  const auto ended = [](const std::string& script) {
    Process process = Process::spawn({.argv = {"/bin/sh", "-c", script}});
    while (!process.poll()) std::this_thread::sleep_for(5ms);
    return process.poll()->text();
  };
  EXPECT_EQ(ended("exit 7"), "exit code 7");
  EXPECT_EQ(ended("kill -9 $$"), "signal 9 (Killed)");
}

TEST(ProcessTest, GivesItsEnvironmentAndLog) {
  Scratch scratch;
  auto env = thread_environment(3);
  env["HOME"] = "";
  Process process =
      Process::spawn({.argv = {"/bin/sh", "-c", "echo $OMP_NUM_THREADS $OMP_WAIT_POLICY [$HOME]; echo 2 >&2"},
                      .env = env,
                      .log_path = scratch.path() + "/log",
                      .cpus = {0}});
  while (!process.poll()) std::this_thread::sleep_for(5ms);
  EXPECT_EQ(scratch.read("log"), "3 passive []\n2\n");
  EXPECT_EQ(tail(scratch.path() + "/log", 1), "2");
  EXPECT_EQ(tail(scratch.path() + "/log", 9), "3 passive []\n2");
  EXPECT_EQ(tail(scratch.path() + "/log", 9, 13), "2") << "what follows the first 13 bytes";
  EXPECT_EQ(tail(scratch.path() + "/log", 9, 99), "");
  EXPECT_EQ(tail(scratch.path() + "/nothing", 9), "");
}

}  // namespace
}  // namespace troupe
