#include "tests/network/network.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <list>
#include <map>
#include <stdexcept>
#include <thread>

namespace troupe {
namespace {

// ---- namespaces -----------------------------------------------------------------------------------------------------

// The output of a command line of our own making; throws with it when the command fails.
std::string shell(const std::string& command) {
  FILE* const pipe = popen((command + " 2>&1").c_str(), "r");
  if (!pipe) throw std::runtime_error(command + ": " + std::strerror(errno));
  std::string out;
  char buffer[256];
  while (std::fgets(buffer, sizeof buffer, pipe)) out += buffer;
  if (pclose(pipe) != 0) throw std::runtime_error(command + ": " + out);
  return out;
}

class Namespaces final : public TestNetwork {
 public:
  Namespaces(int hosts, uint64_t seed) : hosts_(hosts) {
    try {
      std::string ports;
      for (int i = 0; i < hosts_; ++i) {
        shell("ip netns add " + name(i));
        ++made_;
        shell("ip -n " + name(i) + " link set lo up");
        ports += " " + name(i) + "=eth0";
      }
      start_switch(std::to_string(seed) + ports);
      for (int i = 0; i < hosts_; ++i) {
        shell("ip -n " + name(i) + " addr add " + address(i) + "/24 dev eth0");
        shell("ip -n " + name(i) + " link set eth0 up");
      }
    } catch (...) {
      remove();
      throw;
    }
  }
  ~Namespaces() override { remove(); }

  std::string kind() const override { return "network namespaces on a software switch"; }
  std::vector<std::string> launch(int host) const override {
    return {"/usr/bin/env", "ip", "netns", "exec", name(host)};
  }
  std::string bind(int host) const override { return address(host); }
  std::string advertise(int) override { return ""; }
  void cut(int host) override { tell("cut " + name(host) + " all"); }
  void cut_pair(int a, int b) override { tell("cut " + name(a) + " " + name(b)); }
  void cut_one_way(int from, int to) override { tell("oneway " + name(from) + " " + name(to)); }
  void delay(double ms, double jitter) override { tell("delay " + std::to_string(ms) + " " + std::to_string(jitter)); }
  void lose(double share) override { tell("loss " + std::to_string(share)); }
  void heal() override { tell("heal"); }

 private:
  std::string name(int host) const { return "troupe-" + std::to_string(getpid()) + "-" + std::to_string(host); }
  static std::string address(int host) { return "10.78.0." + std::to_string(10 + host); }

  void start_switch(const std::string& arguments) {
    int in[2], out[2];
    if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0) throw std::runtime_error("no pipes");
    const std::string command = std::string("exec ") + SOFT_SWITCH + " " + arguments;
    switch_ = fork();
    if (switch_ == 0) {
      dup2(in[0], STDIN_FILENO);
      dup2(out[1], STDOUT_FILENO);
      execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
      _exit(127);
    }
    close(in[0]);
    close(out[1]);
    to_switch_ = in[1];
    from_switch_ = fdopen(out[0], "r");
    expect("ready");
  }
  void expect(const std::string& word) {
    char line[64] = "";
    if (!std::fgets(line, sizeof line, from_switch_) || std::string(line) != word + "\n")
      throw std::runtime_error("the software switch said '" + std::string(line) + "', expected '" + word + "'");
  }
  void tell(const std::string& command) {
    const std::string line = command + "\n";
    if (write(to_switch_, line.data(), line.size()) != static_cast<ssize_t>(line.size()))
      throw std::runtime_error("the software switch is gone");
    expect("done");
  }
  void remove() {
    if (switch_ > 0) {
      close(to_switch_);
      std::fclose(from_switch_);
      waitpid(switch_, nullptr, 0);
    }
    for (int i = 0; i < made_; ++i) [[maybe_unused]] const int code = std::system(("ip netns del " + name(i)).c_str());
  }

  int hosts_, made_ = 0;
  pid_t switch_ = -1;
  int to_switch_ = -1;
  FILE* from_switch_ = nullptr;
};

// ---- proxies --------------------------------------------------------------------------------------------------------

int listen_on_loopback(int& port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (fd < 0 || ::bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(fd, 64) != 0 ||
      getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0)
    throw std::runtime_error(std::string("a port of the loopback: ") + std::strerror(errno));
  port = ntohs(address.sin_port);
  return fd;
}

// Forwards connections to a port, both ways, unless it is cut: then bytes stay where they are and nobody is told.
class Proxy {
 public:
  Proxy() : listener_(listen_on_loopback(port_)) {
    const int held = listen_on_loopback(target_);  // a port that was free a moment ago
    close(held);
    thread_ = std::thread([this] { run(); });
  }
  ~Proxy() {
    ending_ = true;
    thread_.join();
    close(listener_);
    for (const auto& [a, b] : connections_) close(a), close(b);
  }
  int port() const { return port_; }
  int target() const { return target_; }
  bool known = false;  // somebody was given its port
  std::atomic<bool> cut{false};

 private:
  void run() {
    while (!ending_) {
      std::vector<pollfd> fds{{listener_, POLLIN, 0}};
      if (!cut)
        for (const auto& [a, b] : connections_) fds.push_back({a, POLLIN, 0}), fds.push_back({b, POLLIN, 0});
      poll(fds.data(), fds.size(), 20);
      if (cut) continue;
      auto at = connections_.begin();
      for (std::size_t i = 1; i + 1 < fds.size(); i += 2) {
        const bool lives =
            (!fds[i].revents || pass(at->first, at->second)) && (!fds[i + 1].revents || pass(at->second, at->first));
        if (lives) {
          ++at;
        } else {
          close(at->first);
          close(at->second);
          at = connections_.erase(at);
        }
      }
      if (fds[0].revents) connect_through();
    }
  }
  void connect_through() {
    const int from = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    const int to = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(target_));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (from >= 0 && to >= 0 && connect(to, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) {
      connections_.emplace_back(from, to);
    } else {
      close(from);
      close(to);
    }
  }
  static bool pass(int from, int to) {
    char buffer[65536];
    const ssize_t count = recv(from, buffer, sizeof buffer, 0);
    return count > 0 && send(to, buffer, static_cast<std::size_t>(count), MSG_NOSIGNAL) == count;
  }

  int port_ = 0, target_ = 0;
  int listener_;
  std::atomic<bool> ending_{false};
  std::list<std::pair<int, int>> connections_;
  std::thread thread_;
};

class Proxies final : public TestNetwork {
 public:
  explicit Proxies(int hosts) : proxies_(static_cast<std::size_t>(hosts)) {}
  std::string kind() const override { return "proxies on the loopback"; }
  std::vector<std::string> launch(int) const override { return {}; }
  std::string bind(int host) const override { return "127.0.0.1:" + std::to_string(proxy(host).target()); }
  std::string advertise(int host) override {
    proxy(host).known = true;
    return "127.0.0.1:" + std::to_string(proxy(host).port());
  }
  void cut(int host) override {
    if (proxy(host).known)
      proxy(host).cut = true;
    else  // it calls the others
      for (Proxy& other : proxies_) other.cut = true;
  }
  void cut_pair(int a, int b) override { cut(proxy(b).known ? b : a); }
  void cut_one_way(int from, int to) override { cut_pair(from, to); }
  void delay(double, double) override {}
  void lose(double) override {}
  void heal() override {
    for (Proxy& proxy : proxies_) proxy.cut = false;
  }

 private:
  const Proxy& proxy(int host) const { return proxies_.at(static_cast<std::size_t>(host)); }
  Proxy& proxy(int host) { return proxies_.at(static_cast<std::size_t>(host)); }
  std::vector<Proxy> proxies_;
};

}  // namespace

std::unique_ptr<TestNetwork> make_namespaces(int hosts, uint64_t seed, std::string& why_not) {
  try {
    return std::make_unique<Namespaces>(hosts, seed);
  } catch (const std::exception& error) {
    why_not = error.what();
    return nullptr;
  }
}

std::unique_ptr<TestNetwork> make_proxies(int hosts) {
  return std::make_unique<Proxies>(hosts);
}

}  // namespace troupe
