// Hosts for tests on one machine, and the faults between them.
#pragma once

#include <memory>
#include <string>
#include <vector>

namespace troupe {

class TestNetwork {
 public:
  virtual ~TestNetwork() = default;
  virtual std::string kind() const = 0;  // for the test's report

  // What puts a program on host i: arguments before its own; empty where hosts are addresses only.
  virtual std::vector<std::string> launch(int host) const = 0;
  // Of host i: where a program on it listens, and how the others reach that. `bind` and `advertise` of a node.
  virtual std::string bind(int host) const = 0;
  virtual std::string advertise(int host) = 0;  // "": as bound

  virtual void cut(int host) = 0;  // from all others
  virtual void cut_pair(int a, int b) = 0;
  virtual void cut_one_way(int from, int to) = 0;  // nothing passes from -> to
  virtual void delay(double ms, double jitter_ms) = 0;
  virtual void lose(double share) = 0;
  virtual void heal() = 0;
};

// `hosts` network namespaces on a software switch. Null with the reason where that is not allowed.
std::unique_ptr<TestNetwork> make_namespaces(int hosts, uint64_t seed, std::string& why_not);

// Hosts that are ports of this machine, each behind a proxy that can stop forwarding. Of a host that is cut nothing
// arrives at it; what it sends to others passes their proxies. One that was never advertised calls the others: it is
// cut by theirs. Pairs and directions are not told apart.
std::unique_ptr<TestNetwork> make_proxies(int hosts);

}  // namespace troupe
