// A network switch in software, for tests: one TAP interface in each of several network namespaces, and faults on the
// way between them, from a seed.
//
//   soft_switch SEED NAMESPACE=INTERFACE ...        (needs the right to enter the namespaces and to make interfaces)
//
// Commands on stdin, one a line; "ready" is printed once the interfaces are there, "done" after each command:
//   delay MS JITTER    every frame takes MS + (0 .. JITTER) milliseconds
//   loss P             a frame is lost with probability P
//   cut A B            nothing passes between two namespaces; `all` is every other one
//   oneway A B         nothing passes from A to B
//   heal               all cuts end
// It ends with its stdin.
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <map>
#include <queue>
#include <random>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
using Address = std::array<unsigned char, 6>;

struct Port {
  std::string name;
  int fd;
};

struct Frame {
  Clock::time_point due;
  uint64_t number;
  std::size_t to;
  std::vector<char> bytes;
  bool operator<(const Frame& other) const { return due != other.due ? due > other.due : number > other.number; }
};

[[noreturn]] void fail(const std::string& what) {
  throw std::runtime_error(what + ": " + std::strerror(errno));
}

int open_tap(const std::string& name_space, const std::string& interface) {
  const int own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
  const int other = open(("/var/run/netns/" + name_space).c_str(), O_RDONLY | O_CLOEXEC);
  if (own < 0 || other < 0 || setns(other, CLONE_NEWNET) != 0) fail("namespace " + name_space);
  const int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  ifreq request{};
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  interface.copy(request.ifr_name, IFNAMSIZ - 1);
  if (fd < 0 || ioctl(fd, TUNSETIFF, &request) != 0) fail("interface " + interface + " in " + name_space);
  if (setns(own, CLONE_NEWNET) != 0) fail("the way back from namespace " + name_space);
  close(own);
  close(other);
  return fd;
}

class Switch {
 public:
  Switch(uint64_t seed, std::vector<Port> ports) : random_(seed), ports_(std::move(ports)) {}

  void run() {
    std::vector<pollfd> fds{{STDIN_FILENO, POLLIN, 0}};
    for (const Port& port : ports_) fds.push_back({port.fd, POLLIN, 0});
    std::string input;
    for (;;) {
      const auto wait = waiting_.empty()
                            ? std::chrono::milliseconds(1000)
                            : std::chrono::ceil<std::chrono::milliseconds>(waiting_.top().due - Clock::now());
      poll(fds.data(), fds.size(), static_cast<int>(std::max<int64_t>(0, wait.count())));
      if (fds[0].revents != 0) {
        char buffer[4096];
        const ssize_t count = read(STDIN_FILENO, buffer, sizeof buffer);
        if (count <= 0) return;
        input.append(buffer, static_cast<std::size_t>(count));
        for (std::size_t end; (end = input.find('\n')) != input.npos; input.erase(0, end + 1)) {
          obey(input.substr(0, end));
          std::puts("done");
          std::fflush(stdout);
        }
      }
      for (std::size_t i = 0; i < ports_.size(); ++i)
        if (fds[i + 1].revents & POLLIN) receive(i);
      deliver();
    }
  }

 private:
  void obey(const std::string& line) {
    std::istringstream in(line);
    std::string verb, a, b;
    in >> verb;
    if (verb == "delay") {
      in >> delay_ms_ >> jitter_ms_;
    } else if (verb == "loss") {
      in >> loss_;
    } else if (verb == "heal") {
      cuts_.clear();
    } else if ((verb == "cut" || verb == "oneway") && in >> a >> b) {
      for (const Port& port : ports_) {
        if (port.name == a || (b != "all" && port.name != b)) continue;
        cuts_.insert({a, port.name});
        if (verb == "cut") cuts_.insert({port.name, a});
      }
    } else {
      throw std::runtime_error("no command '" + line + "'");
    }
  }

  void receive(std::size_t from) {
    std::vector<char> bytes(65'600);
    for (int i = 0; i < 64; ++i) {
      const ssize_t count = read(ports_[from].fd, bytes.data(), bytes.size());
      if (count < 14) return;
      Address to, source;
      std::memcpy(to.data(), bytes.data(), 6);
      std::memcpy(source.data(), bytes.data() + 6, 6);
      homes_[source] = from;
      const auto home = homes_.find(to);
      for (std::size_t port = 0; port < ports_.size(); ++port)
        if (port != from && (home == homes_.end() || home->second == port))
          forward(from, port, {bytes.begin(), bytes.begin() + count});
    }
  }

  void forward(std::size_t from, std::size_t to, std::vector<char> bytes) {
    if (cuts_.contains({ports_[from].name, ports_[to].name})) return;
    if (loss_ > 0 && std::uniform_real_distribution<>(0, 1)(random_) < loss_) return;
    const double ms = delay_ms_ + (jitter_ms_ > 0 ? std::uniform_real_distribution<>(0, jitter_ms_)(random_) : 0);
    const auto due = Clock::now() + std::chrono::microseconds(static_cast<int64_t>(ms * 1000));
    waiting_.push({due, ++number_, to, std::move(bytes)});
  }

  void deliver() {
    while (!waiting_.empty() && waiting_.top().due <= Clock::now()) {
      const Frame& frame = waiting_.top();
      // A full interface loses the frame, as a real one does.
      [[maybe_unused]] const auto written = write(ports_[frame.to].fd, frame.bytes.data(), frame.bytes.size());
      waiting_.pop();
    }
  }

  std::mt19937_64 random_;
  std::vector<Port> ports_;
  std::map<Address, std::size_t> homes_;
  std::set<std::pair<std::string, std::string>> cuts_;
  std::priority_queue<Frame> waiting_;
  uint64_t number_ = 0;
  double delay_ms_ = 0, jitter_ms_ = 0, loss_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc < 3) throw std::runtime_error("expected SEED NAMESPACE=INTERFACE ...");
    std::vector<Port> ports;
    for (int i = 2; i < argc; ++i) {
      const std::string port = argv[i];
      const std::size_t equals = port.find('=');
      if (equals == port.npos) throw std::runtime_error("expected NAMESPACE=INTERFACE, found " + port);
      ports.push_back({port.substr(0, equals), open_tap(port.substr(0, equals), port.substr(equals + 1))});
    }
    std::puts("ready");
    std::fflush(stdout);
    Switch(std::strtoull(argv[1], nullptr, 10), std::move(ports)).run();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "soft_switch: %s\n", error.what());
    return 1;
  }
}
