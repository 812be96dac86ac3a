#include "actors/mailbox.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "actors/exchange.hpp"
#include "actors/fault_hooks.hpp"
#include "actors/socket.hpp"

namespace troupe {
namespace {

constexpr Millis kPollAtMost{50};  // resends and deadlines are this late at most
constexpr Millis kWaitSlice{500};  // a waiting thread beats at least this often
// Before a thread sleeps it looks again for this long: waking a sleeping core costs more than a whole round trip.
// Unless others want the core: giving way took longer than kGivingWay, and then sleeping is better, for a woken thread
// is let in before those that compute. So it is for a while.
constexpr std::chrono::microseconds kLookBeforeSleep{100};
constexpr std::chrono::microseconds kGivingWay{200};
constexpr Millis kCrowdedFor{1000};
constexpr Millis kStandAside{1};  // the mailbox thread, while a working thread looks again and again

constexpr std::size_t kMaxFrames = wire::kMaxAttachments + 2;

bool is_tcp(const std::string& endpoint) {
  return endpoint.starts_with("tcp://");
}

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

// Sockets are used by whoever holds the mutex: the mailbox thread, or a working thread that asks, answers or waits.
class SocketMailbox::Post {
 public:
  explicit Post(NodeOptions options);
  ~Post();

  const NodeOptions& options() const { return options_; }
  Pulse& pulse() { return pulse_; }
  void wake() const;
  void link(const std::string& peer);  // connects to it unless it is
  void pump();
  // Runs `look` (mutex held) until it returns a value or the time has come: a short while by looking again, then
  // asleep.
  template <class Look>
  auto wait(std::unique_lock<std::mutex>& lock, Instant until, const Look& look, const std::string& beat_detail)
      -> decltype(look());

  void announce() { changed_.notify_all(); }
  std::string oversize(const Encoded& message) const;  // what is wrong with it; the receiver would cut the connection

 private:
  NodeOptions options_;
  Pulse pulse_;

 public:
  std::mutex mutex;
  Exchange exchange;  // guarded by mutex

 private:
  void bind();
  void run();
  std::vector<pollfd> watched();
  void sleep(std::vector<pollfd>& fds, Millis at_most) const;
  bool receive_request();
  bool receive_answer(const std::string& peer, Socket& socket);
  std::size_t send_letters();

  Socket router_;
  std::map<std::string, Socket> links_;
  int wake_fd_;
  std::condition_variable changed_;
  std::atomic<bool> looked_{false};  // a working thread looks itself, or did so a moment ago
  Instant crowded_until_{};          // guarded by mutex
  std::atomic<bool> closing_{false};
  std::thread thread_;
};

SocketMailbox::Post::Post(NodeOptions options)
    : options_(completed(std::move(options))), pulse_(options_.phase), exchange(options_, pulse_) {
  if (!options_.endpoint.empty()) bind();
  wake_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake_fd_ < 0) throw std::runtime_error(options_.node + ": eventfd: " + std::strerror(errno));
  if (!options_.supervisor.empty()) link(options_.supervisor);
  thread_ = std::thread([this] { run(); });
}

SocketMailbox::Post::~Post() {
  closing_ = true;
  wake();
  thread_.join();
  exchange.close();
  pump();
  announce();
  close(wake_fd_);
}

void SocketMailbox::Post::wake() const {
  const uint64_t one = 1;
  [[maybe_unused]] const auto written = write(wake_fd_, &one, sizeof one);  // full means it is awake anyway
}

std::string SocketMailbox::Post::oversize(const Encoded& message) const {
  std::size_t largest = message.body.bytes.size();
  for (const Frame& frame : message.attachments) largest = std::max(largest, frame.bytes.size());
  if (largest <= options_.max_frame_bytes) return "";
  return "a frame of " + std::to_string(largest) + " bytes is over the limit of " +
         std::to_string(options_.max_frame_bytes);
}

void SocketMailbox::Post::bind() {
  router_ = Socket(options_.transport->context(), Socket::Kind::kRouter, options_.max_frame_bytes);
  if (is_tcp(options_.endpoint)) {
    if (options_.keys.secret_key.empty())
      throw std::invalid_argument(options_.node + ": " + options_.endpoint + " needs the node's keys");
    router_.serve_with(options_.keys);
  }
  router_.bind(options_.endpoint, options_.node);
}

void SocketMailbox::Post::link(const std::string& peer) {
  if (links_.contains(peer)) return;
  const auto known = options_.peers.find(peer);
  if (known == options_.peers.end()) throw std::invalid_argument(options_.node + " has no peer '" + peer + "'");
  const Peer& target = known->second;
  Socket socket(options_.transport->context(), Socket::Kind::kDealer, options_.max_frame_bytes);
  socket.name(options_.node + "#" + std::to_string(options_.incarnation));
  if (is_tcp(target.endpoint)) {
    if (options_.keys.secret_key.empty() || target.public_key.empty())
      throw std::invalid_argument(options_.node + ": asking " + peer + " at " + target.endpoint +
                                  " needs the node's keys and the peer's public key");
    socket.connect_with(options_.keys, target.public_key);
  }
  socket.connect(target.endpoint, options_.node);
  links_.emplace(peer, std::move(socket));
  wake();  // the thread has one more socket to watch
}

std::vector<pollfd> SocketMailbox::Post::watched() {
  std::vector<pollfd> fds{{wake_fd_, POLLIN, 0}};
  if (router_) fds.push_back({router_.descriptor(), POLLIN, 0});
  for (const auto& [peer, socket] : links_) fds.push_back({socket.descriptor(), POLLIN, 0});
  return fds;
}

void SocketMailbox::Post::run() {
  name_fault_points(options_.node, options_.incarnation);
  std::unique_lock lock(mutex);
  while (!closing_) {
    pump();
    const Instant now = std::chrono::steady_clock::now();
    const auto pause = std::clamp(std::chrono::ceil<Millis>(std::min(exchange.next_event(), now + kPollAtMost) - now),
                                  Millis(0), kPollAtMost);
    auto fds = watched();
    lock.unlock();
    sleep(fds, pause);
    // A working thread that looks itself would only be disturbed.
    while (looked_.exchange(false) && !closing_) {
      fds.resize(1);
      sleep(fds, kStandAside);
    }
    lock.lock();
  }
}

// Until one of them is readable; the first is wake_fd_.
void SocketMailbox::Post::sleep(std::vector<pollfd>& fds, Millis at_most) const {
  poll(fds.data(), fds.size(), static_cast<int>(at_most.count()));
  if (fds[0].revents == 0) return;
  uint64_t count = 0;
  [[maybe_unused]] const auto got = read(wake_fd_, &count, sizeof count);
}

// Receives everything, tells the time, sends everything. Until a round without either: the descriptors tell of a change
// only once, and using a socket may swallow it.
void SocketMailbox::Post::pump() {
  const uint64_t slots_before = exchange.slots_done();
  const std::size_t queue_before = exchange.queue().size();
  const bool stopping_before = exchange.stopping();
  for (bool active = true; active;) {
    active = false;
    while (router_ && receive_request()) active = true;
    for (auto& [peer, socket] : links_)
      while (receive_answer(peer, socket)) active = true;
    exchange.tick(std::chrono::steady_clock::now());
    active |= send_letters() > 0;
  }
  if (exchange.slots_done() != slots_before || exchange.queue().size() != queue_before ||
      exchange.stopping() != stopping_before)
    announce();
}

bool SocketMailbox::Post::receive_request() {
  auto arrived = router_.receive(1 + kMaxFrames);
  if (!arrived) return false;
  const std::string connection(arrived->frames[0].text());
  arrived->frames.erase(arrived->frames.begin());
  exchange.request_arrived(connection, arrived->node, std::move(arrived->frames), std::chrono::steady_clock::now());
  return true;
}

bool SocketMailbox::Post::receive_answer(const std::string& peer, Socket& socket) {
  auto arrived = socket.receive(kMaxFrames);
  if (!arrived) return false;
  exchange.answer_arrived(peer, std::move(arrived->frames), std::chrono::steady_clock::now());
  return true;
}

std::size_t SocketMailbox::Post::send_letters() {
  const std::vector<Letter> letters = exchange.take_letters();
  for (const Letter& letter : letters) {
    fault_point("message");
    if (letter.to_peer) {
      links_.at(letter.address).send("", letter.frames);
    } else if (router_ && !letter.address.empty()) {
      router_.send(letter.address, letter.frames);
    }
  }
  return letters.size();
}

template <class Look>
auto SocketMailbox::Post::wait(std::unique_lock<std::mutex>& lock, Instant until, const Look& look,
                               const std::string& beat_detail) -> decltype(look()) {
  Instant now = std::chrono::steady_clock::now();
  const Instant look_until = now < crowded_until_ ? now : std::min(until, now + kLookBeforeSleep);
  const bool looking = look_until > now;
  if (looking) looked_ = true;
  for (;;) {
    pump();
    if (auto result = look()) return result;
    if (now >= look_until) break;
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
  looked_ = false;
  for (bool watched = !looking;; watched = true) {
    if (auto result = look()) return result;
    now = std::chrono::steady_clock::now();
    if (now >= until) return {};
    if (!watched) wake();  // from here on it is the mailbox thread that looks
    if (!beat_detail.empty()) pulse_.beat("wait", beat_detail);
    changed_.wait_until(lock, std::min(until, now + kWaitSlice));
  }
}

// ---- the mailbox --------------------------------------------------------------------------------------------------

SocketMailbox::SocketMailbox(NodeOptions options) : post_(std::make_unique<Post>(std::move(options))) {}
SocketMailbox::~SocketMailbox() = default;

const NodeOptions& SocketMailbox::options() const {
  return post_->options();
}
void SocketMailbox::beat() {
  post_->pulse().beat();
}
void SocketMailbox::beat(std::string_view phase, std::string_view detail) {
  post_->pulse().beat(phase, detail);
}

RoleStatus SocketMailbox::status() const {
  const std::lock_guard lock(post_->mutex);
  return post_->exchange.status();
}
bool SocketMailbox::stopping() const {
  const std::lock_guard lock(post_->mutex);
  return post_->exchange.stopping();
}
std::string SocketMailbox::stop_reason() const {
  const std::lock_guard lock(post_->mutex);
  return post_->exchange.stop_reason();
}
void SocketMailbox::request_stop(std::string reason) {
  const std::lock_guard lock(post_->mutex);
  post_->exchange.stop(reason);
  post_->pump();
  post_->announce();
}
void SocketMailbox::set_generation(uint64_t generation) {
  const std::lock_guard lock(post_->mutex);
  post_->exchange.set_generation(generation);
}

std::shared_ptr<AnswerSlot> SocketMailbox::ask(const std::string& peer, std::string_view type, Encoded message,
                                               const AskOptions& options) {
  if (const std::string why = post_->oversize(message); !why.empty())
    throw std::invalid_argument(std::string(type) + ": " + why);
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

bool SocketMailbox::done(const AnswerSlot& slot) const {
  const std::lock_guard lock(post_->mutex);
  return slot.done;
}

std::optional<std::size_t> SocketMailbox::wait_any(std::span<const std::shared_ptr<AnswerSlot>> slots, Instant until) {
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

void SocketMailbox::forget(const std::shared_ptr<AnswerSlot>& slot) {
  const std::lock_guard lock(post_->mutex);
  if (!slot->done) post_->exchange.withdraw(slot.get());
}

std::optional<Request> SocketMailbox::next(Instant until) {
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

void SocketMailbox::answer(const Request& request, std::string_view type, Encoded reply) {
  if (const std::string why = post_->oversize(reply); !why.empty())
    return fail(request, failure_code::kHandler, std::string(type) + ": " + why);
  const std::lock_guard lock(post_->mutex);
  post_->exchange.answer(request.src, request.id,
                         {std::string(letter_kind::kReply), std::string(type), std::move(reply)});
  post_->pump();
}

void SocketMailbox::fail(const Request& request, std::string_view code, const std::string& message) {
  const std::lock_guard lock(post_->mutex);
  post_->exchange.answer(
      request.src, request.id,
      {std::string(letter_kind::kFailure), "failure", encode(post_->exchange.failure(code, request.type, message))});
  post_->pump();
}

}  // namespace troupe
