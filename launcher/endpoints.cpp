#include "launcher/endpoints.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <random>
#include <stdexcept>

#include "actors/rendezvous.hpp"

namespace troupe {
namespace {

class Socket {
 public:
  explicit Socket(int family) : fd_(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0)) {}
  ~Socket() {
    if (fd_ >= 0) close(fd_);
  }
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  int get() const { return fd_; }

 private:
  int fd_;
};

// For an address of another host, where the node will be launched: nobody can look from here. Below the range that
// systems give out by themselves.
int port_elsewhere() {
  static std::mt19937 random{std::random_device{}()};
  return std::uniform_int_distribution<int>(20'000, 32'000)(random);
}

// A port of `address` that was free a moment ago; `held` keeps it from being given twice.
int free_port(const std::string& address, std::vector<Socket>& held) {
  const bool v6 = address.find(':') != address.npos;
  sockaddr_storage storage{};
  auto* any = reinterpret_cast<sockaddr*>(&storage);
  socklen_t size = v6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
  storage.ss_family = v6 ? AF_INET6 : AF_INET;
  void* host = v6 ? static_cast<void*>(&reinterpret_cast<sockaddr_in6*>(any)->sin6_addr)
                  : static_cast<void*>(&reinterpret_cast<sockaddr_in*>(any)->sin_addr);
  Socket probe(storage.ss_family);
  const bool usable = inet_pton(storage.ss_family, address.c_str(), host) == 1 && probe.get() >= 0;
  const bool bound = usable && bind(probe.get(), any, size) == 0;
  if (usable && !bound && errno == EADDRNOTAVAIL) return port_elsewhere();
  if (!bound || getsockname(probe.get(), any, &size) != 0)
    throw std::runtime_error("transport.bind: cannot listen on " + address + ": " + std::strerror(errno));
  held.push_back(std::move(probe));
  return ntohs(v6 ? reinterpret_cast<sockaddr_in6*>(any)->sin6_port : reinterpret_cast<sockaddr_in*>(any)->sin_port);
}

// "10.0.0.2" or "10.0.0.2:5555", "::1" or "[::1]:5555", as ZeroMQ wants it: with a port, v6 in brackets.
std::string with_port(const std::string& bind, std::vector<Socket>& held) {
  const bool v6 = std::count(bind.begin(), bind.end(), ':') > 1;
  if (bind.starts_with('[') || (!v6 && bind.find(':') != bind.npos)) return bind;
  return (v6 ? "[" + bind + "]" : bind) + ":" + std::to_string(free_port(bind, held));
}

// Without its port.
std::string address_in(const std::string& bind) {
  if (bind.starts_with('[')) return bind.substr(1, bind.find(']') - 1);
  return std::count(bind.begin(), bind.end(), ':') == 1 ? bind.substr(0, bind.find(':')) : bind;
}

void write_secret(const std::filesystem::path& file, const std::string& secret) {
  const int fd = open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  const bool written = fd >= 0 && write(fd, secret.data(), secret.size()) == static_cast<ssize_t>(secret.size());
  if (fd >= 0) close(fd);
  if (!written) throw std::runtime_error("cannot write " + file.string() + ": " + std::strerror(errno));
}

}  // namespace

void assign_endpoints(const Topology& topology, RunFile& run) {
  const bool tcp = topology.transport.control == ControlTransport::kTcp;
  std::vector<Socket> held;
  const auto issue_keys = [&](const std::string& instance) {
    if (!tcp) return;
    const KeyPair keys = make_keys();
    run.public_keys[instance] = keys.public_key;
    write_secret(secret_key_file(run, instance), keys.secret_key);
  };
  const auto assign = [&](const std::string& instance, const std::string& bind) {
    run.endpoints[instance] =
        tcp ? "tcp://" + with_port(bind, held) : "ipc://" + run.sockets + "/" + file_name_of(instance);
    issue_keys(instance);
  };
  assign("supervisor", topology.transport.bind);
  issue_keys(std::string(kStatusNode));
  const bool learners_meet = instances_of_role(topology, "learner").size() > 1;
  for (const NodeSection& node : topology.nodes)
    for (const std::string& instance : instances_of(node)) {
      const std::string& bind = node.bind.empty() ? topology.transport.bind : node.bind;
      assign(instance, bind);
      // In the conductor's process, at a port of its own.
      if (learners_meet && role_of(node) == "conductor") assign(std::string(kRendezvousNode), address_in(bind));
      if (!node.endpoint.empty()) run.endpoints[instance] = node.endpoint;
      if (!node.advertise.empty())
        run.listen[instance] = std::exchange(run.endpoints[instance], "tcp://" + node.advertise);
    }
}

}  // namespace troupe
