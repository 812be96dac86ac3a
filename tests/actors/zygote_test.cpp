// Real processes, forked from a process of one thread: each case is a child of the test's, for the test may have more.
#include "actors/zygote.hpp"

#include <dirent.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cmath>
#include <csignal>
#include <fstream>
#include <random>
#include <thread>

#include "tests/actors/scratch.hpp"
#include "tests/support/alive.hpp"

namespace troupe {
namespace {

using namespace std::chrono_literals;

std::string contents(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

bool soon(const std::function<bool()>& condition) {
  for (int i = 0; i < 500; ++i, std::this_thread::sleep_for(20ms))
    if (condition()) return true;
  return false;
}

ExitStatus end_of(Process& process) {
  std::optional<ExitStatus> status;
  EXPECT_TRUE(soon([&] { return (status = process.poll()).has_value(); }));
  return status.value_or(ExitStatus{-1, 0});
}

// What the processes of these tests run: argv[1] says what.
int act(int argc, char** argv) {
  const std::string part = argv[1];
  if (part == "describe") {
    std::printf("%d %d %d|%s|%s|", argc, getppid(), getpgrp() == getpid(), std::getenv("GIVEN"),
                std::getenv("TAKEN") ? "there" : "gone");
    int descriptors = 0;
    DIR* folder = opendir("/proc/self/fd");
    while (const dirent* entry = readdir(folder))
      if (std::atoi(entry->d_name) > 2 && std::atoi(entry->d_name) != dirfd(folder)) ++descriptors;
    closedir(folder);
    std::printf("%d|%d\n", descriptors, std::fgetc(stdin));
    return 7;
  }
  if (part == "draw") {
    std::printf("%u\n", std::random_device()());
    return 0;
  }
  std::this_thread::sleep_for(60s);
  return 0;
}

// Runs `test` in a process of one thread; what it expects in vain fails the test here.
void alone(const std::function<void(Zygote&)>& test) {
  const pid_t pid = fork();
  if (pid == 0) {
    setenv("TAKEN", "1", 1);
    {
      Zygote zygote(act);
      test(zygote);
    }
    std::fflush(nullptr);
    _exit(testing::Test::HasFailure() ? 1 : 0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

struct ZygoteTest : testing::Test {
  Scratch scratch;
  ProcessOptions options(const std::string& part) {
    return {.argv = {"somebody", part, "--node", "actor/0"},
            .env = {{"GIVEN", "a value"}, {"TAKEN", ""}},
            .log_path = scratch.path() + "/log"};
  }
};

TEST_F(ZygoteTest, WhatItStartsIsAChildOfItsOwnerLikeOneThatWasExeced) {
  alone([&](Zygote& zygote) {
    auto child = zygote.spawn(options("describe"));
    ASSERT_TRUE(child);
    EXPECT_EQ(end_of(*child).code, 7);
    EXPECT_EQ(scratch.read("log"), "4 " + std::to_string(getpid()) + " 1|a value|gone|0|-1\n");
    auto other = zygote.spawn(options("wait"));
    ASSERT_TRUE(other);
    EXPECT_TRUE(soon([&] {
      return std::string(contents("/proc/" + std::to_string(other->pid()) + "/cmdline").c_str()) ==
             "zygote_test wait --node actor/0";
    }));
    EXPECT_EQ(std::string(contents("/proc/" + std::to_string(zygote.pid()) + "/cmdline").c_str()),
              "zygote_test zygote");
    other->signal(SIGTERM);
    EXPECT_EQ(end_of(*other).signal, SIGTERM);
  });
}

TEST_F(ZygoteTest, ItsProcessesDrawRandomNumbersOfTheirOwn) {
  alone([&](Zygote& zygote) {
    for (int i = 0; i < 2; ++i) {
      auto child = zygote.spawn(options("draw"));
      ASSERT_TRUE(child);
      EXPECT_EQ(end_of(*child).code, 0);
    }
    const std::string drawn = scratch.read("log");
    const std::size_t first = drawn.find('\n') + 1;
    EXPECT_NE(drawn.substr(0, first), drawn.substr(first)) << drawn;
  });
}

TEST_F(ZygoteTest, AProcessThatCannotBeSetUpIsNamed) {
  alone([&](Zygote& zygote) {
    ProcessOptions bad = options("wait");
    bad.log_path = "/no/such/folder/log";
    try {
      zygote.spawn(bad);
      ADD_FAILURE() << "it was started";
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ(error.what(), "somebody: /no/such/folder/log: No such file or directory");
    }
    EXPECT_TRUE(zygote.spawn(options("wait")));
  });
}

TEST_F(ZygoteTest, ItsDeathHarmsNobodyAndItStartsNobodyAnyMore) {
  alone([&](Zygote& zygote) {
    auto child = zygote.spawn(options("wait"));
    ASSERT_TRUE(child);
    const pid_t dead = zygote.pid();
    kill(dead, SIGKILL);
    ASSERT_TRUE(soon([&] { return !alive(dead); }));
    EXPECT_FALSE(zygote.spawn(options("wait")));
    EXPECT_FALSE(zygote.spawn(options("wait")));
    EXPECT_TRUE(alive(child->pid()));
    EXPECT_FALSE(child->poll());
  });
}

TEST_F(ZygoteTest, OneThatHangsIsEndedAndLeavesNoProcessBehind) {
  alone([&](Zygote& zygote) {
    const pid_t hung = zygote.pid();
    kill(hung, SIGSTOP);
    EXPECT_FALSE(zygote.spawn(options("wait")));
    EXPECT_FALSE(alive(hung));
    EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);  // no child at all
  });
}

TEST_F(ZygoteTest, AllDieWithTheirOwner) {
  const pid_t owner = fork();
  if (owner == 0) {
    Zygote zygote(act);
    const auto child = zygote.spawn(options("wait"));
    std::ofstream(scratch.path() + "/pids") << zygote.pid() << ' ' << (child ? child->pid() : 0) << std::endl;
    pause();
    _exit(0);
  }
  ASSERT_TRUE(soon([&] { return scratch.read("pids").ends_with("\n"); }));
  pid_t zygote = 0, child = 0;
  std::ifstream(scratch.path() + "/pids") >> zygote >> child;
  ASSERT_TRUE(zygote > 0 && child > 0 && alive(zygote) && alive(child));
  kill(owner, SIGKILL);
  waitpid(owner, nullptr, 0);
  EXPECT_TRUE(soon([&] { return !alive(zygote) && !alive(child); }));
}

}  // namespace
}  // namespace troupe
