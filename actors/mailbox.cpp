#include "actors/mailbox.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "actors/exchange.hpp"

namespace troupe {
namespace {

constexpr std::size_t kCopyBelowBytes = 1024;  // smaller frames are copied into the message: cheaper than sharing
constexpr Millis kPollAtMost{50};              // resends and deadlines are this late at most
constexpr Millis kWaitSlice{500};              // a waiting thread beats at least this often
// Before a thread sleeps it looks again for this long: waking a sleeping core costs more than a whole round trip.
// Unless others want the core: giving way took longer than kGivingWay, and then sleeping is better, for a woken thread
// is let in before those that compute. So it is for a while.
constexpr std::chrono::microseconds kLookBeforeSleep{100};
constexpr std::chrono::microseconds kGivingWay{30};
constexpr Millis kCrowdedFor{1000};

struct CloseSocket {
  void operator()(void* socket) const { zmq_close(socket); }
};
using Socket = std::unique_ptr<void, CloseSocket>;

[[noreturn]] void throw_zmq(const std::string& what) {
  throw std::runtime_error(what + ": " + zmq_strerror(zmq_errno()));
}

template <class T>
void set(const Socket& socket, int option, T value) {
  if (zmq_setsockopt(socket.get(), option, &value, sizeof value) != 0) throw_zmq("socket option");
}
void set(const Socket& socket, int option, const std::string& value) {
  if (zmq_setsockopt(socket.get(), option, value.data(), value.size()) != 0) throw_zmq("socket option");
}

// The options that survived partitions, stopped peers and floods best; a dead link is noticed within 1.5 s.
Socket make_socket(void* context, int type, const NodeOptions& options, int linger_ms) {
  Socket socket(zmq_socket(context, type));
  if (!socket) throw_zmq(options.node + ": socket");
  set(socket, ZMQ_HEARTBEAT_IVL, 500);
  set(socket, ZMQ_HEARTBEAT_TIMEOUT, 1500);
  set(socket, ZMQ_CONNECT_TIMEOUT, 1000);
  set(socket, ZMQ_RECONNECT_IVL, 100);
  set(socket, ZMQ_RECONNECT_IVL_MAX, 1000);
  set(socket, ZMQ_HANDSHAKE_IVL, 1500);
  set(socket, ZMQ_LINGER, linger_ms);
  set(socket, ZMQ_SNDHWM, 1000);
  set(socket, ZMQ_RCVHWM, 1000);
  set(socket, ZMQ_MAXMSGSIZE, static_cast<int64_t>(options.max_frame_bytes));
  return socket;
}

int descriptor(const Socket& socket) {
  int fd = -1;
  std::size_t size = sizeof fd;
  if (zmq_getsockopt(socket.get(), ZMQ_FD, &fd, &size) != 0) throw_zmq("socket descriptor");
  return fd;
}

bool is_tcp(const std::string& endpoint) {
  return endpoint.starts_with("tcp://");
}

// ---- frames and zmq messages share memory --------------------------------------------------------------------------

struct Part {
  Frame frame;
  bool more = false;
};

// The next part, or false when there is none. `user` is set to the authenticated node of the connection, if any.
bool receive_part(const Socket& socket, Part& part, std::string* user) {
  zmq_msg_t message;
  zmq_msg_init(&message);
  if (zmq_msg_recv(&message, socket.get(), ZMQ_DONTWAIT) < 0) return false;
  part.more = zmq_msg_more(&message) != 0;
  if (user) {
    const char* id = zmq_msg_gets(&message, "User-Id");
    *user = id ? id : "";
  }
  struct Held {
    zmq_msg_t message;
    Held() { zmq_msg_init(&message); }
    ~Held() { zmq_msg_close(&message); }
  };
  auto held = std::make_shared<Held>();
  zmq_msg_move(&held->message, &message);  // small messages lie within the zmq_msg_t: their address is final only now
  part.frame.bytes = {static_cast<const std::byte*>(zmq_msg_data(&held->message)), zmq_msg_size(&held->message)};
  part.frame.owner = std::move(held);
  return true;
}

bool send_part(const Socket& socket, const Frame& frame, bool more) {
  zmq_msg_t message;
  if (frame.bytes.size() < kCopyBelowBytes) {
    zmq_msg_init_size(&message, frame.bytes.size());
    if (!frame.bytes.empty()) std::memcpy(zmq_msg_data(&message), frame.bytes.data(), frame.bytes.size());
  } else {
    auto* owner = new std::shared_ptr<const void>(frame.owner);
    zmq_msg_init_data(
        &message, const_cast<std::byte*>(frame.bytes.data()), frame.bytes.size(),
        [](void*, void* hint) { delete static_cast<std::shared_ptr<const void>*>(hint); }, owner);
  }
  if (zmq_msg_send(&message, socket.get(), ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0)) >= 0) return true;
  zmq_msg_close(&message);
  return false;
}

// False when not even the first part could be sent (full, or no such connection): what matters is sent again later.
bool send_parts(const Socket& socket, const std::vector<Frame>& frames, bool begun) {
  for (std::size_t i = 0; i < frames.size(); ++i)
    if (!send_part(socket, frames[i], i + 1 < frames.size()) && i == 0 && !begun) return false;
  return true;
}

}  // namespace

// Sockets are used by whoever holds the mutex: the mailbox thread, or a working thread that asks, answers or waits.
class Mailbox::Post {
 public:
  explicit Post(NodeOptions options);
  ~Post();

  const NodeOptions& options() const { return options_; }
  Pulse& pulse() { return pulse_; }
  void wake() const;
  Socket& link(const std::string& peer);
  void pump();
  // Runs `look` (mutex held) until it returns a value or the time has come: a short while by looking again, then
  // asleep.
  template <class Look>
  auto wait(std::unique_lock<std::mutex>& lock, Instant until, const Look& look, const std::string& beat_detail)
      -> decltype(look());

  void announce() { changed_.notify_all(); }

 private:
  NodeOptions options_;
  Pulse pulse_;

 public:
  std::mutex mutex;
  Exchange exchange;  // guarded by mutex

 private:
  void bind();
  void secure(const Socket& socket, const std::string* server_key) const;
  void run();
  std::vector<pollfd> watched();
  bool receive_request();
  bool receive_answer(const std::string& peer, const Socket& socket);
  std::size_t send_letters();

  Socket router_;
  std::map<std::string, Socket> links_;
  int wake_fd_;
  std::condition_variable changed_;
  std::atomic<int> lookers_{0};
  Instant crowded_until_{};  // guarded by mutex
  std::atomic<bool> closing_{false};
  std::thread thread_;
};

namespace {

NodeOptions completed(NodeOptions options) {
  if (options.node.empty()) throw std::invalid_argument("a node needs a name");
  if (options.incarnation == 0 || options.incarnation >= uint64_t{1} << 23)
    throw std::invalid_argument(options.node + ": incarnation is outside 1 to 2^23");
  if (!options.supervisor.empty() && !options.peers.contains(options.supervisor))
    throw std::invalid_argument(options.node + ": the supervisor '" + options.supervisor + "' is not among the peers");
  if (!options.transport) options.transport = Transport::create();
  if (!options.log) options.log = [](const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); };
  return options;
}

}  // namespace

Mailbox::Post::Post(NodeOptions options)
    : options_(completed(std::move(options))), pulse_(options_.phase), exchange(options_, pulse_) {
  if (!options_.endpoint.empty()) bind();
  wake_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake_fd_ < 0) throw std::runtime_error(options_.node + ": eventfd: " + std::strerror(errno));
  if (!options_.supervisor.empty()) link(options_.supervisor);
  thread_ = std::thread([this] { run(); });
}

Mailbox::Post::~Post() {
  closing_ = true;
  wake();
  thread_.join();
  exchange.close();
  pump();
  announce();
  close(wake_fd_);
}

void Mailbox::Post::wake() const {
  const uint64_t one = 1;
  [[maybe_unused]] const auto written = write(wake_fd_, &one, sizeof one);  // full means it is awake anyway
}

void Mailbox::Post::secure(const Socket& socket, const std::string* server_key) const {
  if (options_.keys.public_key.empty() || options_.keys.secret_key.empty() || (server_key && server_key->empty()))
    throw std::invalid_argument(options_.node + ": a tcp:// endpoint needs the node's keys and its peer's public key");
  set(socket, ZMQ_CURVE_SECRETKEY, options_.keys.secret_key);
  set(socket, ZMQ_CURVE_PUBLICKEY, options_.keys.public_key);
  if (server_key) {
    set(socket, ZMQ_CURVE_SERVERKEY, *server_key);
  } else {
    set(socket, ZMQ_CURVE_SERVER, 1);
  }
}

void Mailbox::Post::bind() {
  router_ = make_socket(options_.transport->context(), ZMQ_ROUTER, options_, 500);
  set(router_, ZMQ_ROUTER_MANDATORY, 1);
  set(router_, ZMQ_ROUTER_HANDOVER, 1);
  if (is_tcp(options_.endpoint)) secure(router_, nullptr);
  if (zmq_bind(router_.get(), options_.endpoint.c_str()) != 0)
    throw_zmq(options_.node + ": can't bind " + options_.endpoint);
  if (options_.endpoint.starts_with("ipc://")) chmod(options_.endpoint.c_str() + 6, 0600);
}

Socket& Mailbox::Post::link(const std::string& peer) {
  const auto found = links_.find(peer);
  if (found != links_.end()) return found->second;
  const auto known = options_.peers.find(peer);
  if (known == options_.peers.end()) throw std::invalid_argument(options_.node + " has no peer '" + peer + "'");
  const Peer& target = known->second;
  Socket socket = make_socket(options_.transport->context(), ZMQ_DEALER, options_, 0);
  set(socket, ZMQ_ROUTING_ID, options_.node + "#" + std::to_string(options_.incarnation));
  if (is_tcp(target.endpoint)) secure(socket, &target.public_key);
  if (zmq_connect(socket.get(), target.endpoint.c_str()) != 0)
    throw_zmq(options_.node + ": can't connect to " + peer + " at " + target.endpoint);
  wake();  // the thread has one more socket to watch
  return links_.emplace(peer, std::move(socket)).first->second;
}

std::vector<pollfd> Mailbox::Post::watched() {
  std::vector<pollfd> fds{{wake_fd_, POLLIN, 0}};
  if (router_) fds.push_back({descriptor(router_), POLLIN, 0});
  for (const auto& [peer, socket] : links_) fds.push_back({descriptor(socket), POLLIN, 0});
  return fds;
}

void Mailbox::Post::run() {
  std::unique_lock lock(mutex);
  while (!closing_) {
    pump();
    const Instant now = std::chrono::steady_clock::now();
    const auto pause = std::clamp(std::chrono::ceil<Millis>(std::min(exchange.next_event(), now + kPollAtMost) - now),
                                  Millis(0), kPollAtMost);
    auto fds = watched();
    lock.unlock();
    poll(fds.data(), fds.size(), static_cast<int>(pause.count()));
    if (fds[0].revents != 0) {
      uint64_t count = 0;
      [[maybe_unused]] const auto got = read(wake_fd_, &count, sizeof count);
    }
    // A working thread is looking itself and would only be disturbed.
    while (lookers_ > 0 && !closing_) std::this_thread::sleep_for(kLookBeforeSleep);
    lock.lock();
  }
}

// Receives everything, tells the time, sends everything. Until a round without either: the descriptors tell of a change
// only once, and using a socket may swallow it.
void Mailbox::Post::pump() {
  const uint64_t slots_before = exchange.slots_done();
  const std::size_t queue_before = exchange.queue().size();
  const bool stopping_before = exchange.stopping();
  for (bool active = true; active;) {
    active = false;
    while (router_ && receive_request()) active = true;
    for (const auto& [peer, socket] : links_)
      while (receive_answer(peer, socket)) active = true;
    exchange.tick(std::chrono::steady_clock::now());
    active |= send_letters() > 0;
  }
  if (exchange.slots_done() != slots_before || exchange.queue().size() != queue_before ||
      exchange.stopping() != stopping_before)
    announce();
}

bool Mailbox::Post::receive_request() {
  Part part;
  if (!receive_part(router_, part, nullptr)) return false;
  const std::string connection(part.frame.text());
  std::string user;
  std::vector<Frame> frames;
  bool too_many = false;
  while (part.more && receive_part(router_, part, &user)) {
    too_many |= frames.size() == wire::kMaxAttachments + 2;
    if (!too_many) frames.push_back(std::move(part.frame));
  }
  if (too_many) frames.clear();
  exchange.request_arrived(connection, user, std::move(frames), std::chrono::steady_clock::now());
  return true;
}

bool Mailbox::Post::receive_answer(const std::string& peer, const Socket& socket) {
  Part part;
  if (!receive_part(socket, part, nullptr)) return false;
  std::vector<Frame> frames{std::move(part.frame)};
  bool too_many = false;
  while (part.more && receive_part(socket, part, nullptr)) {
    too_many |= frames.size() == wire::kMaxAttachments + 2;
    if (!too_many) frames.push_back(std::move(part.frame));
  }
  if (too_many) frames.clear();
  exchange.answer_arrived(peer, std::move(frames), std::chrono::steady_clock::now());
  return true;
}

std::size_t Mailbox::Post::send_letters() {
  const std::vector<Letter> letters = exchange.take_letters();
  for (const Letter& letter : letters) {
    if (letter.to_peer) {
      send_parts(link(letter.address), letter.frames, false);
    } else if (router_ && send_part(router_, Frame{nullptr, std::as_bytes(std::span(letter.address))}, true)) {
      send_parts(router_, letter.frames, true);
    }
  }
  return letters.size();
}

template <class Look>
auto Mailbox::Post::wait(std::unique_lock<std::mutex>& lock, Instant until, const Look& look,
                         const std::string& beat_detail) -> decltype(look()) {
  Instant now = std::chrono::steady_clock::now();
  const Instant look_until = now < crowded_until_ ? now : std::min(until, now + kLookBeforeSleep);
  ++lookers_;
  for (;;) {
    pump();
    auto result = look();
    if (result || now >= look_until) {
      --lookers_;
      if (result) return result;
      break;
    }
    lock.unlock();
    const Instant before = std::chrono::steady_clock::now();
    std::this_thread::yield();
    now = std::chrono::steady_clock::now();
    lock.lock();
    if (now - before > kGivingWay) {
      crowded_until_ = now + kCrowdedFor;
      now = std::max(now, look_until);  // one last look
    }
  }
  for (;;) {
    if (auto result = look()) return result;
    now = std::chrono::steady_clock::now();
    if (now >= until) return {};
    if (!beat_detail.empty()) pulse_.beat("wait", beat_detail);
    changed_.wait_until(lock, std::min(until, now + kWaitSlice));
  }
}

// ---- the mailbox --------------------------------------------------------------------------------------------------

Mailbox::Mailbox(NodeOptions options) : post_(std::make_unique<Post>(std::move(options))) {}
Mailbox::~Mailbox() = default;

const NodeOptions& Mailbox::options() const {
  return post_->options();
}
void Mailbox::beat() {
  post_->pulse().beat();
}
void Mailbox::beat(std::string_view phase, std::string_view detail) {
  post_->pulse().beat(phase, detail);
}

RoleStatus Mailbox::status() const {
  const std::lock_guard lock(post_->mutex);
  return post_->exchange.status();
}
bool Mailbox::stopping() const {
  const std::lock_guard lock(post_->mutex);
  return post_->exchange.stopping();
}
std::string Mailbox::stop_reason() const {
  const std::lock_guard lock(post_->mutex);
  return post_->exchange.stop_reason();
}
void Mailbox::request_stop(std::string reason) {
  const std::lock_guard lock(post_->mutex);
  post_->exchange.stop(reason);
  post_->pump();
  post_->announce();
}
void Mailbox::set_generation(uint64_t generation) {
  const std::lock_guard lock(post_->mutex);
  post_->exchange.set_generation(generation);
}

std::shared_ptr<AnswerSlot> Mailbox::ask(const std::string& peer, std::string_view type, Encoded message,
                                         const AskOptions& options) {
  const std::size_t limit = post_->options().max_frame_bytes;
  const auto too_big = [&](const Frame& frame) { return frame.bytes.size() > limit; };
  if (too_big(message.body) || std::any_of(message.attachments.begin(), message.attachments.end(), too_big))
    throw std::invalid_argument(std::string(type) + ": a frame is over the limit of " + std::to_string(limit) +
                                " bytes");
  if (options.id >= kFirstOwnId) throw std::invalid_argument(std::string(type) + ": a stable id must be below 2^40");
  auto slot = std::make_shared<AnswerSlot>();
  slot->peer = peer;
  slot->what = options.what.empty() ? std::string(type) : options.what;
  OpenRequest request{peer, options.id, options.trace, std::string(type), std::move(message), slot};
  const Instant now = std::chrono::steady_clock::now();
  request.deadline = now + options.deadline;
  const std::lock_guard lock(post_->mutex);
  post_->link(peer);
  post_->exchange.ask(std::move(request), now);
  post_->pump();
  return slot;
}

bool Mailbox::done(const AnswerSlot& slot) const {
  const std::lock_guard lock(post_->mutex);
  return slot.done;
}

std::optional<std::size_t> Mailbox::wait_any(std::span<const std::shared_ptr<AnswerSlot>> slots, Instant until) {
  if (slots.empty()) return std::nullopt;
  const auto look = [&]() -> std::optional<std::size_t> {
    for (std::size_t i = 0; i < slots.size(); ++i)
      if (slots[i]->done) return i;
    return std::nullopt;
  };
  std::string detail = "for " + slots[0]->peer + " " + slots[0]->what;
  if (slots.size() > 1) detail += " and " + std::to_string(slots.size() - 1) + " more";
  std::unique_lock lock(post_->mutex);
  return post_->wait(lock, until, look, detail);
}

void Mailbox::forget(const std::shared_ptr<AnswerSlot>& slot) {
  const std::lock_guard lock(post_->mutex);
  if (!slot->done) post_->exchange.withdraw(slot.get());
}

std::optional<Request> Mailbox::next(Instant until) {
  Exchange& exchange = post_->exchange;
  struct Found {
    std::optional<Request> request;  // without one: the node is stopping
    explicit operator bool() const { return found; }
    bool found = false;
  };
  const auto look = [&]() -> Found {
    auto& queue = exchange.queue();
    while (!queue.empty()) {
      Request request = std::move(queue.front());
      queue.pop_front();
      if (request.expires > std::chrono::steady_clock::now()) return {std::move(request), true};
      exchange.answer(request.src, request.id,
                      {std::string(letter_kind::kFailure), "failure",
                       encode(exchange.failure(failure_code::kDeadline, request.type, "expired in the queue"))});
    }
    return {std::nullopt, exchange.stopping()};
  };
  std::unique_lock lock(post_->mutex);
  return post_->wait(lock, until, look, "").request;
}

void Mailbox::answer(const Request& request, std::string_view type, Encoded reply) {
  const std::size_t limit = post_->options().max_frame_bytes;
  const auto too_big = [&](const Frame& frame) { return frame.bytes.size() > limit; };
  if (too_big(reply.body) || std::any_of(reply.attachments.begin(), reply.attachments.end(), too_big))
    return fail(request, failure_code::kHandler, "the answer is over the frame limit of " + std::to_string(limit));
  const std::lock_guard lock(post_->mutex);
  post_->exchange.answer(request.src, request.id,
                         {std::string(letter_kind::kReply), std::string(type), std::move(reply)});
  post_->pump();
}

void Mailbox::fail(const Request& request, std::string_view code, const std::string& message) {
  const std::lock_guard lock(post_->mutex);
  post_->exchange.answer(
      request.src, request.id,
      {std::string(letter_kind::kFailure), "failure", encode(post_->exchange.failure(code, request.type, message))});
  post_->pump();
}

}  // namespace troupe
