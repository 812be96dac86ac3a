// A node's sockets and the thread that owns them. Every node binds one ROUTER at its endpoint, where requests arrive,
// and connects one DEALER to each peer it asks. The mailbox thread answers Status and Stop and sends heartbeats at all
// times, however long the working thread computes; progress is bumped by the working thread alone (beat()), so a hung
// handler behind a living socket is found by its lease.
//
// Delivery is at least once: an unanswered request is sent again (300 ms, doubling, at most 1 s apart) until its
// deadline; the receiver recognises it by (sender's node, id) and either says it is being worked on or gives the kept
// answer again. A replaced process gets the request as new work. Letters of another run, an older epoch or an older
// incarnation of their sender are dropped and counted; so are malformed ones, logged once per peer.
//
// Thread rules: construct and destroy anywhere; all other members may be called from any thread. Roles use the typed
// Context and Handle (handle.hpp) and the runner (runner.hpp) on top of this.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "actors/clock.hpp"
#include "actors/security.hpp"
#include "protocol/envelope.hpp"
#include "protocol/failure.hpp"
#include "protocol/messages.hpp"

namespace troupe {

// Where a node may be asked. `public_key` is its CURVE key, needed for tcp:// only.
struct Peer {
  std::string endpoint;  // "inproc://learner-0", "ipc:///run/dir/learner-0", "tcp://10.0.0.2:5555"
  std::string public_key;
};

struct NodeOptions {
  std::string node;          // "actor/0"
  uint64_t incarnation = 1;  // counted by the supervisor, from 1
  std::string run;           // the run's name
  uint64_t epoch = 1;        // raised with every start of the conductor
  bool drives = false;       // the conductor: serves nothing but Status and Stop, never adopts a higher epoch but
                             // takes one as proof of its own replacement and stops
  std::string endpoint{};    // bound here; empty: the node only asks
  std::map<std::string, Peer> peers{};     // by node name
  std::string supervisor{};                // the peer that heartbeats go to; empty: none
  KeyPair keys{};                          // needed for tcp:// only
  std::shared_ptr<Transport> transport{};  // shared by the nodes of one process; null: its own, without allow-list
  std::string phase = "load";              // what the node is doing until its first beat
  Millis heartbeat_every{500};
  Millis resend_first{300};
  Millis resend_cap{1000};
  std::size_t max_frame_bytes = std::size_t{64} << 20;
  std::function<void(const std::string& line)> log{};  // default: one line to stderr; must not call the mailbox
};

struct AskOptions {
  Millis deadline{120'000};  // from the ask; the Failure kDeadline names role, peer, operation and `what`
  std::string what{};        // operation and step for error lines, "generate draw 12"; empty: the message's name
  // 0: the mailbox numbers the request, unique in the run also across the asker's restarts. A caller that may ask the
  // same again after its own restart passes a stable id below 2^40, unique per peer, and gets the kept answer.
  uint64_t id = 0;
  uint64_t trace =
      0;  // stands in the envelope, comes with the request, goes back in the answer; for following one rollout
};

// A request as it arrived; answer it through Mailbox::answer exactly once.
struct Request {
  std::string src;  // who asks
  uint64_t id = 0;
  uint64_t trace = 0;
  std::string type;  // kName of the message
  Frame body;
  std::vector<Frame> attachments;
  Instant expires{};  // the asker's deadline
};

// An answer in the making, shared by the mailbox and a Pending. Fields are the mailbox's until done.
struct AnswerSlot {
  std::string peer;
  std::string what;
  bool done = false;  // guarded by the mailbox; read it through Mailbox::done
  std::optional<Failure> failure;
  std::string type;
  Frame body;
  std::vector<Frame> attachments;
};

class Mailbox {
 public:
  virtual ~Mailbox() = default;

  virtual const NodeOptions& options() const = 0;
  virtual Instant now() const = 0;  // the time that deadlines are counted in; a simulator's is virtual

  // ---- the working thread's progress
  virtual void beat() = 0;
  virtual void beat(std::string_view phase, std::string_view detail = {}) = 0;
  virtual RoleStatus status() const = 0;
  virtual bool stopping() const = 0;  // a Stop arrived, or request_stop was called, or a newer conductor was seen
  virtual std::string stop_reason() const = 0;
  virtual void request_stop(std::string reason) = 0;
  virtual void set_generation(uint64_t generation) = 0;  // stands in the envelopes sent from now on

  // ---- asking
  // Throws std::invalid_argument when `peer` is not among the options' peers or a frame is over the size limit.
  virtual std::shared_ptr<AnswerSlot> ask(const std::string& peer, std::string_view type, Encoded message,
                                          const AskOptions& options) = 0;
  virtual bool done(const AnswerSlot& slot) const = 0;
  // Waits until any of the slots is done or the time has come, beating "waiting for ..." meanwhile; the index of a
  // done slot, or nothing.
  virtual std::optional<std::size_t> wait_any(std::span<const std::shared_ptr<AnswerSlot>> slots, Instant until) = 0;
  virtual void forget(const std::shared_ptr<AnswerSlot>& slot) = 0;  // the answer is no longer wanted: no more resends

  // ---- serving
  // The next request, or nothing when the time has come or the node is stopping. Expired requests are skipped.
  virtual std::optional<Request> next(Instant until) = 0;
  virtual void answer(const Request& request, std::string_view type, Encoded reply) = 0;
  virtual void fail(const Request& request, std::string_view code, const std::string& message) = 0;
};

// The real one: ZeroMQ sockets and a thread.
class SocketMailbox final : public Mailbox {
 public:
  // Binds and starts the thread; throws std::invalid_argument for options that make no sense (tcp:// without keys) and
  // std::runtime_error when the endpoint can't be bound.
  explicit SocketMailbox(NodeOptions options);
  ~SocketMailbox()
      override;  // answers already given are flushed for up to half a second; open asks fail with kStopping
  SocketMailbox(const SocketMailbox&) = delete;
  SocketMailbox& operator=(const SocketMailbox&) = delete;

  const NodeOptions& options() const override;
  Instant now() const override { return std::chrono::steady_clock::now(); }
  void beat() override;
  void beat(std::string_view phase, std::string_view detail = {}) override;
  RoleStatus status() const override;
  bool stopping() const override;
  std::string stop_reason() const override;
  void request_stop(std::string reason) override;
  void set_generation(uint64_t generation) override;
  std::shared_ptr<AnswerSlot> ask(const std::string& peer, std::string_view type, Encoded message,
                                  const AskOptions& options) override;
  bool done(const AnswerSlot& slot) const override;
  std::optional<std::size_t> wait_any(std::span<const std::shared_ptr<AnswerSlot>> slots, Instant until) override;
  void forget(const std::shared_ptr<AnswerSlot>& slot) override;
  std::optional<Request> next(Instant until) override;
  void answer(const Request& request, std::string_view type, Encoded reply) override;
  void fail(const Request& request, std::string_view code, const std::string& message) override;

 private:
  class Post;
  std::unique_ptr<Post> post_;
};

}  // namespace troupe
