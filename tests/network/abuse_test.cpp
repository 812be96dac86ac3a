// Strangers at a run's ports: silent, babbling, slow, and claiming frames of a gigabyte. They are shown the door within
// the handshake's time, and the run ends with the bits of the undisturbed one.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <sstream>
#include <thread>

#include "core/metrics/metrics_log.hpp"
#include "tests/roles/run_fixture.hpp"

namespace troupe {
namespace {

using std::chrono::milliseconds;

constexpr int kSteps = 60;

class Stranger {
 public:
  explicit Stranger(int port) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd_ < 0 || (connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 && errno != EINPROGRESS))
      throw std::runtime_error("port " + std::to_string(port) + ": " + std::strerror(errno));
  }
  Stranger(Stranger&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ~Stranger() {
    if (fd_ >= 0) close(fd_);
  }
  void say(const std::string& bytes) {
    [[maybe_unused]] const auto sent = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  }
  // Reads away what is offered; whether the other side has closed.
  bool shown_the_door() {
    char buffer[4096];
    for (;;) {
      const ssize_t count = recv(fd_, buffer, sizeof buffer, MSG_DONTWAIT);
      if (count == 0 || (count < 0 && errno != EAGAIN && errno != ENOTCONN)) return true;
      if (count < 0) return false;
    }
  }

 private:
  int fd_;
};

std::vector<int> ports_of(const TroupeRun& run) {
  const auto file = nlohmann::json::parse(std::ifstream(run.folder() / "run.json"));
  std::vector<int> ports;
  for (const auto& [node, endpoint] : file.at("endpoints").items()) {
    const std::string text = endpoint;
    ports.push_back(std::stoi(text.substr(text.rfind(':') + 1)));
  }
  return ports;
}

// "127.0.0.1:5555" of every TCP socket that a process listens on.
std::vector<std::string> listening(pid_t pid) {
  std::set<std::string> own;  // inodes
  for (const auto& entry : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/fd")) {
    std::error_code gone;
    const std::string target = std::filesystem::read_symlink(entry.path(), gone).string();
    if (target.starts_with("socket:[")) own.insert(target.substr(8, target.size() - 9));
  }
  std::vector<std::string> out;
  for (const char* table : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    std::ifstream in(table);
    std::string line;
    std::getline(in, line);
    while (std::getline(in, line)) {
      std::istringstream fields(line);
      std::string number, local, remote, state, skip, inode;
      fields >> number >> local >> remote >> state;
      for (int i = 0; i < 5; ++i) fields >> skip;
      fields >> inode;
      if (state != "0A" || !own.contains(inode)) continue;
      in_addr address{};
      address.s_addr = static_cast<uint32_t>(std::stoul(local.substr(0, 8), nullptr, 16));
      char text[INET_ADDRSTRLEN];
      inet_ntop(AF_INET, &address, text, sizeof text);
      out.push_back((local.size() > 13 ? "v6" : std::string(text)) + ":" +
                    std::to_string(std::stoi(local.substr(local.rfind(':') + 1), nullptr, 16)));
    }
  }
  return out;
}

// ZMTP 3.1's greeting, mechanism CURVE, and after it a frame that claims a gigabyte.
std::string greeting_with_a_gigabyte() {
  std::string bytes("\xff\0\0\0\0\0\0\0\x01\x7f\x03\x01", 12);
  bytes += std::string("CURVE") + std::string(15, '\0') + std::string(32, '\0');
  bytes += std::string("\x02\0\0\0\0\x40\0\0\0", 9) + std::string(1000, 'x');
  return bytes;
}

TEST(Abuse, OfThePortsHarmsNobody) {
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);

  TroupeRun run("abuse", "grpo-tiny-local.json",
                {"nodes.conductor.config.steps=" + std::to_string(kSteps), "transport.control=tcp"});
  ASSERT_TRUE(run.wait_for_step(1));
  const std::vector<int> ports = ports_of(run);

  std::set<std::string> declared;
  for (const int port : ports) declared.insert("127.0.0.1:" + std::to_string(port));
  std::vector<pid_t> processes{run.launcher_pid()};
  for (const char* node : {"learner/0", "actor/0", "actor/1", "conductor/0", "reference/0", "reward/0"})
    processes.push_back(run.pid_of(node));
  std::size_t found = 0;
  for (const pid_t process : processes)
    for (const std::string& address : listening(process)) {
      ++found;
      EXPECT_TRUE(declared.contains(address)) << "process " << process << " listens on " << address;
    }
  EXPECT_EQ(found, declared.size());

  std::mt19937 random(7);
  const auto noise = [&] {
    std::string bytes(64 + random() % 4000, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    return bytes;
  };
  const int each = std::getenv("TROUPE_STRANGERS") ? std::atoi(std::getenv("TROUPE_STRANGERS")) : 250;
  std::vector<Stranger> strangers, slow;
  for (int i = 0; i < each; ++i) {
    for (const int port : ports) {
      strangers.emplace_back(port);
      if (i % 3 == 1) strangers.back().say(noise());
      if (i % 3 == 2) strangers.back().say(greeting_with_a_gigabyte());
      if (i % 10 == 0) slow.emplace_back(port);
    }
    // The kernel holds a hundred that were not taken yet; beyond them it would be the kernel's patience that is tested.
    if (i % 20 == 19) std::this_thread::sleep_for(milliseconds(20));
  }
  const auto begin = std::chrono::steady_clock::now();
  const std::string greeting = greeting_with_a_gigabyte();
  std::size_t left = strangers.size() + slow.size();
  for (std::size_t at = 0; left > 0 && std::chrono::steady_clock::now() - begin < std::chrono::seconds(20); ++at) {
    std::this_thread::sleep_for(milliseconds(100));
    for (Stranger& stranger : slow) stranger.say(greeting.substr(std::min(at, greeting.size() - 1), 1));
    left = 0;
    for (Stranger& stranger : strangers) left += !stranger.shown_the_door();
    for (Stranger& stranger : slow) left += !stranger.shown_the_door();
  }
  std::printf("%zu strangers at %zu ports, the last one was out after %.1f s\n", strangers.size() + slow.size(),
              ports.size(), std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  EXPECT_EQ(left, 0u) << "strangers are still connected";
  EXPECT_EQ(run.wait(), 0) << run.output();
  EXPECT_EQ(run.output().find("restart "), std::string::npos) << run.output();
  EXPECT_EQ(run.weights_digest(), undisturbed(kSteps).weights_digest());
  run.ledger(kSteps, 8, 8);
}

}  // namespace
}  // namespace troupe
