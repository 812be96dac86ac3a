// Keys and the socket context of a process. tcp:// endpoints speak CURVE only: every run makes its own key pairs, a
// connection whose public key is not on the allow-list gets no word, and a letter whose sender is not the node its key
// was issued for is dropped by the mailbox. ipc:// endpoints lie in a directory of mode 0700.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

namespace troupe {

// A CURVE key pair in Z85 text, 40 characters each. The secret half goes to its node only, by file mode 0600 or pipe.
struct KeyPair {
  std::string public_key{};
  std::string secret_key{};
};

// A fresh pair; throws std::runtime_error when libzmq was built without CURVE.
KeyPair make_keys();
// The pair that belongs to a secret half of 32 bytes; throws likewise.
KeyPair keys_of(const std::array<uint8_t, 32>& secret_half);

// Public key -> node it was issued for ("actor/0").
using AllowList = std::map<std::string, std::string>;

// One ZeroMQ context with the authentication thread that enforces the allow-list. In one process all nodes share one
// (inproc:// endpoints exist within a transport only). Thread-safe; outlives its mailboxes by shared ownership.
class Transport {
 public:
  static std::shared_ptr<Transport> create(AllowList allowed = {});
  virtual ~Transport() = default;
  virtual void* context() = 0;  // the zmq context, for the mailbox
  // The node a public key was issued for; empty when the key is unknown.
  virtual std::string node_of(const std::string& public_key) const = 0;
};

// Creates `path` with mode 0700, or checks that it is a directory of this user with no rights for others; throws
// std::runtime_error naming the path otherwise.
void make_private_directory(const std::string& path);

}  // namespace troupe
