#include "actors/socket.hpp"

#include <sys/stat.h>
#include <zmq.h>

#include <cstring>
#include <stdexcept>

namespace troupe {
namespace {

constexpr std::size_t kCopyBelowBytes = 1024;  // smaller frames are copied into the message: cheaper than sharing

[[noreturn]] void throw_zmq(const std::string& what) {
  throw std::runtime_error(what + ": " + zmq_strerror(zmq_errno()));
}

template <class T>
void set(void* socket, int option, T value) {
  if (zmq_setsockopt(socket, option, &value, sizeof value) != 0) throw_zmq("socket option");
}
void set(void* socket, int option, const std::string& value) {
  if (zmq_setsockopt(socket, option, value.data(), value.size()) != 0) throw_zmq("socket option");
}

// Keeps a received message alive behind a frame.
struct Held {
  zmq_msg_t message;
  Held() { zmq_msg_init(&message); }
  ~Held() { zmq_msg_close(&message); }
  Held(const Held&) = delete;
};

// The next part, and whether more follow; false when there is none.
bool receive_part(void* socket, Frame& frame, bool& more, std::string& node) {
  zmq_msg_t message;
  zmq_msg_init(&message);
  if (zmq_msg_recv(&message, socket, ZMQ_DONTWAIT) < 0) return false;
  more = zmq_msg_more(&message) != 0;
  if (const char* user = zmq_msg_gets(&message, "User-Id")) node = user;
  auto held = std::make_shared<Held>();
  zmq_msg_move(&held->message, &message);  // small messages lie within the zmq_msg_t: their address is final only now
  frame.bytes = {static_cast<const std::byte*>(zmq_msg_data(&held->message)), zmq_msg_size(&held->message)};
  frame.owner = std::move(held);
  return true;
}

bool send_part(void* socket, std::span<const std::byte> bytes, const std::shared_ptr<const void>& owner, bool more) {
  zmq_msg_t message;
  if (bytes.size() < kCopyBelowBytes) {
    zmq_msg_init_size(&message, bytes.size());
    if (!bytes.empty()) std::memcpy(zmq_msg_data(&message), bytes.data(), bytes.size());
  } else {
    const auto release = [](void*, void* hint) { delete static_cast<std::shared_ptr<const void>*>(hint); };
    zmq_msg_init_data(&message, const_cast<std::byte*>(bytes.data()), bytes.size(), release,
                      new std::shared_ptr<const void>(owner));
  }
  if (zmq_msg_send(&message, socket, ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0)) >= 0) return true;
  zmq_msg_close(&message);
  return false;
}

}  // namespace

void Socket::Close::operator()(void* socket) const {
  zmq_close(socket);
}

Socket::Socket(void* context, Kind kind, std::size_t max_frame_bytes)
    : handle_(zmq_socket(context, kind == Kind::kRouter ? ZMQ_ROUTER : ZMQ_DEALER)) {
  if (!handle_) throw_zmq("socket");
  void* socket = handle_.get();
  set(socket, ZMQ_HEARTBEAT_IVL, 500);  // a dead link is noticed within 1.5 s
  set(socket, ZMQ_HEARTBEAT_TIMEOUT, 1500);
  set(socket, ZMQ_CONNECT_TIMEOUT, 1000);
  set(socket, ZMQ_RECONNECT_IVL, 100);
  set(socket, ZMQ_RECONNECT_IVL_MAX, 1000);
  set(socket, ZMQ_HANDSHAKE_IVL, 1500);
  set(socket, ZMQ_LINGER, kind == Kind::kRouter ? 500 : 0);  // given answers are worth a moment
  set(socket, ZMQ_SNDHWM, 1000);
  set(socket, ZMQ_RCVHWM, 1000);
  set(socket, ZMQ_MAXMSGSIZE, static_cast<int64_t>(max_frame_bytes));
  if (kind == Kind::kDealer) return;
  set(socket, ZMQ_ROUTER_MANDATORY, 1);
  set(socket, ZMQ_ROUTER_HANDOVER, 1);
}

void Socket::name(const std::string& routing_id) {
  set(handle_.get(), ZMQ_ROUTING_ID, routing_id);
}

void Socket::serve_with(const KeyPair& own) {
  set(handle_.get(), ZMQ_CURVE_SECRETKEY, own.secret_key);
  set(handle_.get(), ZMQ_CURVE_PUBLICKEY, own.public_key);
  set(handle_.get(), ZMQ_CURVE_SERVER, 1);
}

void Socket::connect_with(const KeyPair& own, const std::string& server_key) {
  set(handle_.get(), ZMQ_CURVE_SECRETKEY, own.secret_key);
  set(handle_.get(), ZMQ_CURVE_PUBLICKEY, own.public_key);
  set(handle_.get(), ZMQ_CURVE_SERVERKEY, server_key);
}

void Socket::bind(const std::string& endpoint, const std::string& who) {
  if (zmq_bind(handle_.get(), endpoint.c_str()) != 0) throw_zmq(who + ": can't bind " + endpoint);
  if (endpoint.starts_with("ipc://")) chmod(endpoint.c_str() + 6, 0600);
}

void Socket::connect(const std::string& endpoint, const std::string& who) {
  if (zmq_connect(handle_.get(), endpoint.c_str()) != 0) throw_zmq(who + ": can't connect to " + endpoint);
}

int Socket::descriptor() const {
  int fd = -1;
  std::size_t size = sizeof fd;
  if (zmq_getsockopt(handle_.get(), ZMQ_FD, &fd, &size) != 0) throw_zmq("socket descriptor");
  return fd;
}

std::optional<Socket::Arrived> Socket::receive(std::size_t max_frames) {
  Arrived arrived;
  bool too_many = false, more = true;
  for (Frame frame; more && receive_part(handle_.get(), frame, more, arrived.node);) {
    too_many |= arrived.frames.size() == max_frames;
    if (!too_many) arrived.frames.push_back(std::move(frame));
  }
  if (arrived.frames.empty()) return std::nullopt;
  if (too_many) arrived.frames.resize(1);
  return arrived;
}

bool Socket::send(const std::string& connection, const std::vector<Frame>& frames) {
  bool begun = false;
  if (!connection.empty()) {
    begun = send_part(handle_.get(), std::as_bytes(std::span(connection)), nullptr, true);
    if (!begun) return false;
  }
  for (std::size_t i = 0; i < frames.size(); ++i) {
    const bool sent = send_part(handle_.get(), frames[i].bytes, frames[i].owner, i + 1 < frames.size());
    if (!sent && !begun) return false;
    begun = true;  // from here on the rest must follow, or the next message would be taken for it
  }
  return true;
}

}  // namespace troupe
