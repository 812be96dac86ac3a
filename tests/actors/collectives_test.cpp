#include "actors/collectives.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <barrier>
#include <cerrno>
#include <csignal>
#include <fstream>
#include <latch>
#include <thread>

#include "actors/process.hpp"
#include "actors/rendezvous.hpp"
#include "tests/actors/scratch.hpp"

namespace troupe {
namespace {

using namespace std::chrono_literals;

// Runs `member` as rank 0..size-1, each on a thread, over a table in this process.
void as_group(int size, const std::function<void(Group&)>& member) {
  auto table = std::make_shared<RendezvousTable>();
  table->advance(1);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank)
    threads.emplace_back([&, rank] {
      Group group({.rank = rank, .size = size, .timeout = 30s}, local_rendezvous(table, 1));
      member(group);
    });
  for (auto& thread : threads) thread.join();
}

TEST(Group, ReducesAndBroadcasts) {
  as_group(3, [](Group& group) {
    const int rank = group.options().rank;
    at::Tensor a = at::full({5}, rank + 1.0);
    group.all_reduce_sum(a);
    EXPECT_TRUE(at::equal(a, at::full({5}, 6.0)));
    at::Tensor b = at::full({2, 2}, rank, at::kInt);
    group.broadcast(b, 2);
    EXPECT_TRUE(at::equal(b, at::full({2, 2}, 2, at::kInt)));
    std::vector<int64_t> bounds{0, 1000, 1000, 1500};  // rank 1 brings nothing
    const at::Tensor expected = at::arange(1500, at::kFloat);
    at::Tensor c = at::zeros({1500});
    const int64_t begin = bounds[static_cast<std::size_t>(rank)], end = bounds[static_cast<std::size_t>(rank) + 1];
    c.slice(0, begin, end).copy_(expected.slice(0, begin, end));
    group.all_gather(c, bounds);
    EXPECT_TRUE(at::equal(c, expected));
    group.barrier();
  });
}

TEST(Group, ADeadMemberEndsTheOthersAllGather) {
  std::barrier formed(3);  // a member that leaves while others are still coming ends their forming
  as_group(3, [&](Group& group) {
    formed.arrive_and_wait();
    if (group.options().rank == 1) return group.abort();
    at::Tensor tensor = at::zeros({3000});
    const std::vector<int64_t> bounds{0, 1000, 2000, 3000};
    const Instant begin = std::chrono::steady_clock::now();
    EXPECT_THROW(group.all_gather(tensor, bounds), std::runtime_error);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, 20s);
    group.abort();
  });
}

// Gloo writes to its sockets without MSG_NOSIGNAL: where the peer is gone already, that would end this process too.
TEST(Group, AWriteToADeadPeerIsNoSignal) {
  std::signal(SIGPIPE, SIG_DFL);
  as_group(1, [](Group&) {
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    close(ends[0]);
    EXPECT_EQ(write(ends[1], "x", 1), -1);
    EXPECT_EQ(errno, EPIPE);
    close(ends[1]);
  });
}

TEST(Group, AbortEndsACallThatWaitsForAPeer) {
  std::latch ended(1);
  as_group(2, [&](Group& group) {
    at::Tensor tensor = at::zeros({10});
    if (group.options().rank == 1) return ended.wait();  // never takes part
    std::thread impatient([&] {
      std::this_thread::sleep_for(100ms);
      group.abort();
    });
    const Instant begin = std::chrono::steady_clock::now();
    try {
      group.all_reduce_sum(tensor);
      ADD_FAILURE() << "was not aborted";
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ(error.what(), "group generation 1, rank 0 of 2: all-reduce: aborted");
    }
    EXPECT_LT(std::chrono::steady_clock::now() - begin, 4s);
    ended.count_down();  // abort() returns when the peer has closed the connections of what was under way
    impatient.join();
    EXPECT_THROW(group.barrier(), std::runtime_error);
  });
}

// A member that computes for longer than it took to form the group is waited for; who waits can say so.
TEST(Group, ACollectiveHasItsOwnTimeAndWaitersAreCalled) {
  auto table = std::make_shared<RendezvousTable>();
  EXPECT_EQ(table->next(), 1U);
  std::atomic<int> called{0};
  const auto member = [&](int rank) {
    GroupOptions options{.rank = rank, .size = 2, .timeout = 20s, .forming = 3s};
    if (rank == 0) options.while_waiting = [&] { ++called; };
    Group group(options, local_rendezvous(table, 1));
    if (rank == 1) std::this_thread::sleep_for(4s);
    at::Tensor tensor = at::ones({10});
    group.all_reduce_sum(tensor);
    EXPECT_TRUE(at::equal(tensor, at::full({10}, 2.0)));
  };
  std::thread other([&] { member(1); });
  member(0);
  other.join();
  EXPECT_GE(called, 2);
}

TEST(Group, NamesTheRankThatDoesNotCome) {
  auto table = std::make_shared<RendezvousTable>();
  table->advance(4);
  try {
    Group group({.generation = 4, .rank = 0, .size = 2, .forming = 300ms}, local_rendezvous(table, 4));
    FAIL();
  } catch (const std::runtime_error& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("group generation 4, rank 0 of 2: can't be formed"), std::string::npos) << text;
    EXPECT_NE(text.find("missing after"), std::string::npos) << text;
  }
}

TEST(Rendezvous, FencesOlderGenerations) {
  auto shared = std::make_shared<RendezvousTable>();
  shared->advance(1);
  const auto old_member = local_rendezvous(shared, 1);
  old_member->set("k", "v");
  EXPECT_EQ(old_member->add("n", 2), 2);
  EXPECT_EQ(old_member->add("n", -5), -3);
  shared->advance(2);
  EXPECT_THROW(old_member->set("k", "w"), RemoteFailure);
  const auto member = local_rendezvous(shared, 2);
  EXPECT_FALSE(member->check({"k"}));
  EXPECT_THROW(member->get("k", 20ms), std::runtime_error);
  EXPECT_THROW(shared->advance(2), std::invalid_argument);
  // Who numbers a generation of its own is fenced like who was left behind.
  EXPECT_THROW(local_rendezvous(shared, 3)->set("k", "v"), RemoteFailure);
  EXPECT_EQ(shared->next(), 3U);
  EXPECT_THROW(member->check({"k"}), RemoteFailure);
  EXPECT_EQ(RendezvousTable(uint64_t{2} << 32).next(), (uint64_t{2} << 32) + 1);
}

// Three processes; one is killed in the middle and started again. The survivors keep their processes and re-form with
// the next generation; the sums are those of an undisturbed run.
TEST(Group, SurvivorsOfAKilledMemberFormTheNextGeneration) {
  Scratch scratch;
  auto table = std::make_shared<RendezvousTable>();
  auto number = [&, generation = uint64_t{0}]() mutable {
    table->advance(++generation);
    std::ofstream(scratch.path() + "/generation.new") << generation;
    std::filesystem::rename(scratch.path() + "/generation.new", scratch.path() + "/generation");
  };
  NodeOptions options;
  options.node = "rendezvous/0";
  options.run = "test";
  options.endpoint = "ipc://" + scratch.path() + "/rendezvous";
  RendezvousServer server(options, table);
  number();
  const auto spawn = [&](int rank, int die_at, int incarnation) {
    return Process::spawn({.argv = {TEST_MEMBER, scratch.path(), std::to_string(rank), "3", std::to_string(die_at),
                                    std::to_string(incarnation)},
                           .env = thread_environment(1)});
  };
  std::vector<Process> members;
  std::vector<pid_t> pids;
  for (int rank = 0; rank < 3; ++rank) {
    members.push_back(spawn(rank, rank == 1 ? 15 : 0, 1));
    pids.push_back(members.back().pid());
  }
  const Instant until = std::chrono::steady_clock::now() + 60s;
  int deaths = 0;
  for (bool running = true; running && std::chrono::steady_clock::now() < until;) {
    running = false;
    for (int rank = 0; rank < 3; ++rank) {
      auto& member = members[static_cast<std::size_t>(rank)];
      const auto status = member.poll();
      running |= !status || !status->clean();
      if (!status || status->clean()) continue;
      ++deaths;
      number();  // first, or the new member might join the group that has died
      member = spawn(rank, 0, deaths + 1);
    }
    std::this_thread::sleep_for(5ms);
  }
  EXPECT_EQ(deaths, 1);
  // Sum over 30 steps s of (1 + 2 + 3) * s, in each of 100,000 elements.
  for (int rank = 0; rank < 3; ++rank) {
    std::istringstream result(scratch.read("result-" + std::to_string(rank)));
    double sum = 0;
    pid_t pid = 0;
    result >> sum >> pid;
    EXPECT_EQ(sum, 6.0 * 465 * 100'000) << "rank " << rank;
    EXPECT_EQ(pid == pids[static_cast<std::size_t>(rank)], rank != 1);
  }
  for (const char* rank : {"0", "2"})
    EXPECT_NE(scratch.read(std::string("errors-") + rank).find("group generation 1"), std::string::npos);
}

}  // namespace
}  // namespace troupe
