// Ranks of a job on different hosts. Hosts are two network namespaces joined by a virtual cable, where this process may
// make them; otherwise the same goes over 127.0.0.1, and the test says so.
#include <ATen/ops/allclose.h>
#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <functional>

#include "actors/descriptor.hpp"
#include "roles/jobs/job_group.hpp"
#include "tests/roles/job_processes.hpp"

namespace troupe {
namespace {

using namespace std::chrono_literals;

const std::string kSecret = "a secret that two hosts share";

class JobHosts : public JobProcesses {
 protected:
  // Waits for the command's end; what it said, "" when it went well.
  std::string complaint(std::vector<std::string> argv) {
    const std::string said = home_ / "command.log";
    std::filesystem::remove(said);
    Process process = Process::spawn({.argv = std::move(argv), .log_path = said});
    for (int i = 0; i < 1000; ++i, std::this_thread::sleep_for(10ms))
      if (const auto status = process.poll()) return status->clean() ? "" : status->text() + ": " + tail(said, 2);
    return "does not end";
  }
  std::string ip(const std::vector<std::string>& words) {
    std::vector<std::string> argv{"/usr/bin/env", "ip"};
    argv.insert(argv.end(), words.begin(), words.end());
    return complaint(argv);
  }

  // Two hosts; "" or why they can't be made.
  std::string make_hosts() {
    for (int host = 0; host < 2; ++host)
      if (const std::string why = ip({"netns", "add", name_of(host)}); !why.empty()) return why;
    made_ = true;
    std::string why =
        ip({"link", "add", "eth0", "netns", name_of(0), "type", "veth", "peer", "name", "eth0", "netns", name_of(1)});
    for (int host = 0; host < 2 && why.empty(); ++host) {
      why = ip({"-n", name_of(host), "addr", "add", address_of_host(host) + "/24", "dev", "eth0"});
      for (const char* device : {"lo", "eth0"}) why += ip({"-n", name_of(host), "link", "set", device, "up"});
    }
    return why;
  }
  void remove_hosts() {
    for (int host = 0; host < 2 && made_; ++host) ip({"netns", "del", name_of(host)});
    made_ = false;
  }
  void TearDown() override {
    remove_hosts();
    JobProcesses::TearDown();
  }
  static std::string name_of(int host) { return "troupe-job-" + std::to_string(getpid()) + "-" + std::to_string(host); }
  static std::string address_of_host(int host) { return "10.99.0." + std::to_string(host + 1); }

  // Rank r of two, on its host.
  Process start_rank(int rank, const std::string& name, const std::vector<std::string>& more,
                     const std::string& address, int port) {
    std::vector<std::string> before;
    if (made_) before = {"/usr/bin/env", "ip", "netns", "exec", name_of(rank)};
    return start(name, more, before,
                 {{"RANK", std::to_string(rank)},
                  {"WORLD_SIZE", "2"},
                  {"LOCAL_WORLD_SIZE", "1"},
                  {"MASTER_ADDR", address},
                  {"MASTER_PORT", std::to_string(port)},
                  {"TROUPE_SECRET", kSecret}},
                 rank == 0 ? "log" : "log-1");
  }

  bool made_ = false;
};

sockaddr_in loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

int free_port() {
  const Descriptor socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = loopback(0);
  socklen_t size = sizeof address;
  EXPECT_EQ(bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), size), 0);
  EXPECT_EQ(getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  return ntohs(address.sin_port);
}

bool listens(int port) {
  const Descriptor socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_in address = loopback(port);
  return connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

TEST_F(JobHosts, RanksOnTwoHostsTrainAsOneProcess) {
  const std::string why = make_hosts();
  if (!why.empty()) {
    remove_hosts();
    std::printf("no network namespaces (%s): ranks on 127.0.0.1 instead\n", why.c_str());
  }
  const std::string address = made_ ? address_of_host(0) : "127.0.0.1";
  const int port = made_ ? 29500 : free_port();
  const std::vector<std::string> settings{"--epochs", "5", "--batch_size", "8", "--learning_rate", "1e-2"};
  Process other = start_rank(1, "hosts", settings, address, port);
  ASSERT_EQ(end(start_rank(0, "hosts", settings, address, port), "hosts"), 0)
      << log("hosts") << tail(home_ / "hosts" / "log-1", 5);
  EXPECT_EQ(end(std::move(other), "hosts"), 0) << tail(home_ / "hosts" / "log-1", 5);
  EXPECT_NE(log("hosts").find("2 processes, each with"), std::string::npos) << log("hosts");

  std::vector<std::string> same_host = settings;
  same_host.insert(same_host.end(), {"--nproc", "2"});
  ASSERT_EQ(run("host", same_host), 0) << log("host");
  ASSERT_EQ(run("one", {"--epochs", "5", "--batch_size", "16", "--learning_rate", "1e-2"}), 0) << log("one");
  const StateDict hosts = weights("hosts"), host = weights("host"), one = weights("one");
  for (const auto& [name, value] : hosts) {
    EXPECT_TRUE(at::equal(value, host.at(name))) << name;
    EXPECT_TRUE(at::allclose(value, one.at(name), 1e-3, 1e-3)) << name;
  }
}

TEST_F(JobHosts, ARankWithAnotherSecretIsNotLetIn) {
  const int port = free_port();
  const Process rank_0 = start_rank(0, "secret", {}, "127.0.0.1", port);
  for (int i = 0; i < 3000 && !listens(port); ++i) std::this_thread::sleep_for(10ms);
  ASSERT_TRUE(listens(port)) << log("secret");
  JobRank rank{.rank = 1, .size = 2, .address = "127.0.0.1", .port = port, .secret = "another secret, as long"};
  try {
    JobGroup group(rank, 2000ms);
    FAIL() << "was let in";
  } catch (const std::runtime_error& error) {
    EXPECT_NE(std::string(error.what()).find("no answer of rank 0 at tcp://127.0.0.1:"), std::string::npos)
        << error.what();
    EXPECT_NE(std::string(error.what()).find("the same secret"), std::string::npos) << error.what();
  }
  rank.secret = kSecret;
  JobGroup group(rank, 60'000ms);
  EXPECT_EQ(group.size(), 2);
}

TEST_F(JobHosts, AnotherHostNeedsASecret) {
  const auto refused = [&](const std::map<std::string, std::string>& secret) {
    std::map<std::string, std::string> environment{
        {"RANK", "1"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "10.99.0.1"}, {"MASTER_PORT", "29500"}};
    environment.insert(secret.begin(), secret.end());
    std::filesystem::remove(home_ / "refused" / "log");
    EXPECT_EQ(end(start("refused", {}, {}, environment), "refused"), 1);
    return log("refused");
  };
  EXPECT_NE(refused({}).find("MASTER_ADDR is 10.99.0.1, another host: expected a secret"), std::string::npos);
  EXPECT_NE(refused({{"TROUPE_SECRET", "short"}}).find("TROUPE_SECRET: 5 characters, expected at least 16"),
            std::string::npos);
  const std::string file = home_ / "secret";
  std::ofstream(file) << kSecret << '\n';
  chmod(file.c_str(), 0644);
  EXPECT_NE(refused({{"TROUPE_SECRET_FILE", file}}).find(file + ": expected a file with mode 0600"), std::string::npos);
}

}  // namespace
}  // namespace troupe
