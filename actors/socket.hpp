// One ZeroMQ socket with the options that survived partitions, stopped peers and floods best, and frames that share
// their memory with ZeroMQ's messages. Used by one thread at a time.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/security.hpp"
#include "protocol/wire.hpp"

namespace troupe {

class Socket {
 public:
  enum class Kind { kRouter, kDealer };  // where requests arrive; what asks one peer

  // All parts of one message.
  struct Arrived {
    std::string node;           // whom the connection's key was issued for; empty without keys
    std::vector<Frame> frames;  // kRouter: the first is the connection it came by
  };

  Socket() = default;  // no socket
  Socket(void* context, Kind kind, std::size_t max_frame_bytes);
  explicit operator bool() const { return handle_ != nullptr; }

  void name(const std::string& routing_id);  // what a kDealer is called at its peer
  void serve_with(const KeyPair& own);
  void connect_with(const KeyPair& own, const std::string& server_key);
  // Throw std::runtime_error that begins with `who` and names the endpoint.
  void bind(const std::string& endpoint, const std::string& who);
  void connect(const std::string& endpoint, const std::string& who);

  // Readable when something has changed: receive until nothing comes, also after every send.
  int descriptor() const;
  // The next message, or nothing. One of more than `max_frames` parts comes without any but the first.
  std::optional<Arrived> receive(std::size_t max_frames);
  // False when it could not be sent (full, no such connection): what matters is sent again later. `connection` stands
  // first for a kRouter, and is empty for a kDealer.
  bool send(const std::string& connection, const std::vector<Frame>& frames);

 private:
  struct Close {
    void operator()(void* socket) const;
  };
  std::unique_ptr<void, Close> handle_;
};

}  // namespace troupe
