#include "actors/security.hpp"

#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <thread>
#include <vector>

namespace troupe {
namespace {

std::string z85(const std::string& key) {
  std::array<char, 41> text{};
  zmq_z85_encode(text.data(), reinterpret_cast<const uint8_t*>(key.data()), 32);
  return text.data();
}

// The parts of the next message; empty when the context is being shut down.
std::vector<std::string> receive_parts(void* socket) {
  std::vector<std::string> parts;
  for (int more = 1; more != 0;) {
    zmq_msg_t part;
    zmq_msg_init(&part);
    if (zmq_msg_recv(&part, socket, 0) < 0) {
      if (errno == EINTR && parts.empty()) continue;
      return {};
    }
    parts.emplace_back(static_cast<const char*>(zmq_msg_data(&part)), zmq_msg_size(&part));
    more = zmq_msg_more(&part);
    zmq_msg_close(&part);
  }
  return parts;
}

class ZmqTransport final : public Transport {
 public:
  explicit ZmqTransport(AllowList allowed) : allowed_(std::move(allowed)), context_(zmq_ctx_new()) {
    // Bound before any server socket: a connection that arrives without a handler would be let in.
    socket_ = zmq_socket(context_, ZMQ_REP);
    const int no_linger = 0;
    zmq_setsockopt(socket_, ZMQ_LINGER, &no_linger, sizeof no_linger);
    if (zmq_bind(socket_, "inproc://zeromq.zap.01") != 0)
      throw std::runtime_error(std::string("authentication handler: ") + zmq_strerror(errno));
    thread_ = std::thread([this] { authenticate(); });
  }
  ~ZmqTransport() override {
    zmq_ctx_shutdown(context_);
    thread_.join();
    zmq_ctx_term(context_);
  }
  void* context() override { return context_; }
  std::string node_of(const std::string& public_key) const override {
    const auto found = allowed_.find(public_key);
    return found == allowed_.end() ? "" : found->second;
  }

 private:
  // ZAP (rfc.zeromq.org/spec/27): version, request id, domain, address, identity, mechanism, credentials. The answer's
  // user id is the node's name; the mailbox finds it on every message of that connection.
  void authenticate() {
    for (;;) {
      const std::vector<std::string> request = receive_parts(socket_);
      if (request.empty()) break;
      const bool curve = request.size() == 7 && request[5] == "CURVE" && request[6].size() == 32;
      const std::string node = curve ? node_of(z85(request[6])) : "";
      if (node.empty()) tell_of_stranger(request.size() > 3 ? request[3] : "?");
      const std::array<std::string, 6> reply{"1.0",
                                             request.size() > 1 ? request[1] : "",
                                             node.empty() ? "400" : "200",
                                             node.empty() ? "unknown key" : "OK",
                                             node,
                                             ""};
      for (std::size_t i = 0; i < reply.size(); ++i)
        zmq_send(socket_, reply[i].data(), reply[i].size(), i + 1 < reply.size() ? ZMQ_SNDMORE : 0);
    }
    zmq_close(socket_);
  }

  // A line to stderr, once a minute for each address.
  void tell_of_stranger(const std::string& address) {
    const auto now = std::chrono::steady_clock::now();
    if (told_.size() >= kMaxStrangers) told_.clear();
    const auto [at, fresh] = told_.emplace(address, now);
    if (!fresh && now - at->second < std::chrono::minutes(1)) return;
    at->second = now;
    std::fprintf(stderr, "a connection from %s was refused: its key is not of this run\n", address.c_str());
  }

  static constexpr std::size_t kMaxStrangers = 1024;
  std::map<std::string, std::chrono::steady_clock::time_point> told_;  // by address; the thread's own
  const AllowList allowed_;
  void* context_;
  void* socket_ = nullptr;
  std::thread thread_;
};

}  // namespace

KeyPair make_keys() {
  std::array<char, 41> public_key{}, secret_key{};
  if (zmq_curve_keypair(public_key.data(), secret_key.data()) != 0)
    throw std::runtime_error(std::string("CURVE keys can't be made: ") + zmq_strerror(errno));
  return {public_key.data(), secret_key.data()};
}

KeyPair keys_of(const std::array<uint8_t, 32>& secret_half) {
  std::array<char, 41> public_key{}, secret_key{};
  zmq_z85_encode(secret_key.data(), secret_half.data(), secret_half.size());
  if (zmq_curve_public(public_key.data(), secret_key.data()) != 0)
    throw std::runtime_error(std::string("CURVE keys can't be made: ") + zmq_strerror(errno));
  return {public_key.data(), secret_key.data()};
}

std::shared_ptr<Transport> Transport::create(AllowList allowed) {
  return std::make_shared<ZmqTransport>(std::move(allowed));
}

void make_private_directory(const std::string& path) {
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST)
    throw std::runtime_error(path + ": can't be created: " + std::strerror(errno));
  struct stat info {};
  if (lstat(path.c_str(), &info) != 0 || !S_ISDIR(info.st_mode))
    throw std::runtime_error(path + ": expected a directory");
  if (info.st_uid != geteuid() || (info.st_mode & 0077) != 0)
    throw std::runtime_error(path + ": expected a directory of this user with mode 0700");
}

}  // namespace troupe
