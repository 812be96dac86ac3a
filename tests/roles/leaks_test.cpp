// What many restarts and many groups of learners leave behind in those that live on: nothing. TROUPE_RESTARTS and
// TROUPE_REGROUPS ask for more of them than there is time for in every run of the tests.
#include <signal.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <thread>

#include "roles/ledger.hpp"
#include "roles/run_file.hpp"
#include "tests/roles/run_fixture.hpp"

namespace troupe {
namespace {

namespace fs = std::filesystem;

// Of a living process.
struct Footprint {
  int64_t descriptors = 0, sockets = 0, memory_files = 0, mappings = 0, threads = 0, zombies = 0;
  int64_t resident_kb = 0;
  // What is compared, with its name and how much more of it is no leak: a connection, the version that is published
  // just now (over many looks even the lowest may be with or without).
  using Member = int64_t Footprint::*;
  struct Field {
    const char* name;
    Member member;
    int64_t slack;
  };
  static constexpr Field kFields[] = {
      {"descriptors", &Footprint::descriptors, 1},   {"sockets", &Footprint::sockets, 1},
      {"memory files", &Footprint::memory_files, 1}, {"mappings of shared memory", &Footprint::mappings, 1},
      {"threads", &Footprint::threads, 0},           {"zombies", &Footprint::zombies, 0}};
};

int64_t zombies_of(pid_t parent) {
  int64_t count = 0;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    std::string stat;
    std::getline(std::ifstream(entry.path() / "stat"), stat);
    const std::size_t name_end = stat.rfind(')');
    if (name_end == stat.npos || stat.size() < name_end + 5 || stat[name_end + 2] != 'Z') continue;
    count += std::atoi(stat.c_str() + name_end + 4) == parent;
  }
  return count;
}

Footprint footprint_of(pid_t pid) {
  Footprint out;
  const fs::path proc = "/proc/" + std::to_string(pid);
  for (const auto& entry : fs::directory_iterator(proc / "fd")) {
    std::error_code closed;
    const std::string target = fs::read_symlink(entry.path(), closed).string();
    if (closed) continue;
    ++out.descriptors;
    out.sockets += target.starts_with("socket:");
    out.memory_files += target.starts_with("/memfd:");
  }
  std::ifstream maps(proc / "maps"), status(proc / "status");
  for (std::string line; std::getline(maps, line);)
    out.mappings += line.find("/memfd:") != line.npos || line.find("/dev/shm/") != line.npos;
  for (std::string line; std::getline(status, line);) {
    std::istringstream words(line);
    std::string name;
    words >> name;
    if (name == "Threads:") words >> out.threads;
    if (name == "VmRSS:") words >> out.resident_kb;
  }
  out.zombies = zombies_of(pid);
  return out;
}

// Connections come and go, so each figure is the lowest of several looks.
Footprint calmest(const std::vector<Footprint>& looks, std::size_t begin, std::size_t end) {
  Footprint out = looks.at(begin);
  for (std::size_t i = begin; i < end; ++i) {
    for (const auto& field : Footprint::kFields)
      out.*field.member = std::min(out.*field.member, looks[i].*field.member);
    out.resident_kb = std::min(out.resident_kb, looks[i].resident_kb);
  }
  return out;
}

int asked_for(const char* variable, int otherwise) {
  const char* text = std::getenv(variable);
  return text ? std::atoi(text) : otherwise;
}

std::size_t entries_of(const fs::path& folder) {
  return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

// Kills the victims of a run without end in turn, `restarts` times; looks at `survivors` when the run has gone on for
// two steps after each, and compares the second quarter's looks with the last one's.
void expect_no_growth(const std::string& name, const std::vector<std::string>& victims, int restarts,
                      const std::vector<std::string>& survivors, std::vector<std::string> sets = {}) {
  for (const char* set : {"nodes.conductor.config.steps=1000000", "nodes.conductor.config.checkpoint_every=3",
                          "nodes.conductor.config.export_model=false", "restarts.limit=1000", "restarts.window_s=1"})
    sets.push_back(set);
  TroupeRun run(name, "grpo-tiny-local.json", sets);
  ASSERT_TRUE(run.wait_for_step(1));
  std::map<std::string, std::vector<Footprint>> looks;
  std::vector<std::size_t> socket_files;
  for (int i = 0; i < restarts; ++i) {
    const auto ended = static_cast<int>(run.steps_ended());
    ::kill(run.pid_of(victims[static_cast<std::size_t>(i) % victims.size()]), SIGKILL);
    ASSERT_TRUE(run.wait_for_step(ended + 3, 120)) << "after restart " << i + 1;
    // A descriptor that is open for a moment is in few of several quick looks, one that has leaked in all.
    std::map<std::string, std::vector<Footprint>> quick;
    for (int look = 0; look < 5; ++look, std::this_thread::sleep_for(std::chrono::milliseconds(20)))
      for (const std::string& node : survivors)
        quick[node].push_back(footprint_of(node == "launcher" ? run.launcher_pid() : run.pid_of(node)));
    for (const std::string& node : survivors) looks[node].push_back(calmest(quick[node], 0, quick[node].size()));
    socket_files.push_back(entries_of(read_run_file(run.folder()).sockets));
  }
  const fs::path sockets = read_run_file(run.folder()).sockets;
  const std::size_t n = socket_files.size();
  ASSERT_GE(n, 4u);
  for (const std::string& node : survivors) {
    EXPECT_EQ(run.output().find("started " + node + ", incarnation 2"), std::string::npos)
        << node << " died too:\n"
        << run.output().substr(0, 10'000);
    const Footprint before = calmest(looks.at(node), n / 4, n / 2), after = calmest(looks.at(node), n - n / 4, n);
    std::printf("%-12s after %zu looks, then after %zu:", node.c_str(), n / 2, n);
    for (const auto& field : Footprint::kFields) {
      std::printf(" %s %lld %lld,", field.name, static_cast<long long>(before.*field.member),
                  static_cast<long long>(after.*field.member));
      EXPECT_LE(after.*field.member, before.*field.member + field.slack) << node << ": " << field.name;
    }
    std::printf(" resident %lld %lld KiB\n", static_cast<long long>(before.resident_kb),
                static_cast<long long>(after.resident_kb));
    if (node == "launcher" || node == "conductor/0") {
      EXPECT_LE(after.resident_kb, before.resident_kb + 5 * 1024);
    }
  }
  const auto fewest = [&](std::size_t begin, std::size_t end) {
    return *std::min_element(socket_files.begin() + static_cast<std::ptrdiff_t>(begin),
                             socket_files.begin() + static_cast<std::ptrdiff_t>(end));
  };
  EXPECT_LE(fewest(n - n / 4, n), fewest(n / 4, n / 2)) << "socket files";
  run.signal(SIGINT);
  EXPECT_EQ(run.wait(), 0) << run.output();
  EXPECT_FALSE(fs::exists(sockets)) << sockets;
  for (const auto& entry : fs::recursive_directory_iterator(run.folder()))
    EXPECT_EQ(entry.path().filename().string().find(".tmp"), std::string::npos) << entry.path();
  const Ledger ledger = check_ledger(run.folder());
  EXPECT_TRUE(ledger.violations.empty()) << ::testing::PrintToString(ledger.violations);
}

TEST(Leaks, RolesKilledAgainAndAgainLeaveNothingBehind) {
  expect_no_growth("leaks-roles", {"reward/0", "actor/1", "learner/0"}, asked_for("TROUPE_RESTARTS", 12),
                   {"launcher", "conductor/0", "actor/0", "reference/0"});
}

TEST(Leaks, AConductorKilledAgainAndAgainLeavesNothingBehind) {
  expect_no_growth("leaks-conductor", {"conductor/0"}, asked_for("TROUPE_RESTARTS", 8),
                   {"launcher", "learner/0", "actor/0", "actor/1", "reference/0", "reward/0"});
}

TEST(Leaks, GroupsFormedAgainAndAgainLeaveNothingBehind) {
  expect_no_growth("leaks-groups", {"learner/1"}, asked_for("TROUPE_REGROUPS", 8),
                   {"launcher", "conductor/0", "learner/0", "actor/0"}, {"nodes.learner.count=2"});
}

}  // namespace
}  // namespace troupe
