// The whole protocol of one node without sockets, threads or clocks: letters come in, letters to send come out, and
// time is told to it. The mailbox moves the letters; a simulator may move them otherwise. Not thread-safe (the mailbox
// guards it), except Pulse.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "actors/delivery.hpp"
#include "actors/mailbox.hpp"

namespace troupe {

// What the working thread last said about itself. Any thread.
class Pulse {
 public:
  explicit Pulse(std::string phase) : phase_(std::move(phase)) {}
  void beat() { progress_.fetch_add(1, std::memory_order_relaxed); }
  void beat(std::string_view phase, std::string_view detail);
  void fill(RoleStatus& status) const;

 private:
  std::atomic<uint64_t> progress_{0};
  mutable std::mutex mutex_;
  std::string phase_, detail_;
};

// A letter to send.
struct Letter {
  bool to_peer = false;  // a request over the connection to the peer `address`; else an answer, back over the incoming
  std::string address;   // connection `address`
  std::vector<Frame> frames;  // envelope, body, attachments
};

class Exchange {
 public:
  static constexpr std::size_t kMaxQueued = 4096;  // requests waiting for the working thread; beyond it they are
                                                   // dropped without an ack, so the asker sends them again

  Exchange(const NodeOptions& options, const Pulse& pulse);

  // ---- events
  // `authenticated`: the node the connection's key was issued for; empty on transports without keys.
  void request_arrived(const std::string& connection, const std::string& authenticated, std::vector<Frame> frames,
                       Instant now);
  void answer_arrived(const std::string& peer, std::vector<Frame> frames, Instant now);
  void ask(OpenRequest request, Instant now);
  void withdraw(const AnswerSlot* slot) { outbox_.withdraw(slot); }
  void answer(const std::string& src, uint64_t id, KeptAnswer answer);
  void tick(Instant now);  // resends, deadlines, heartbeats
  void stop(const std::string& reason);
  void close();  // every open ask fails with kStopping
  void set_generation(uint64_t generation) { generation_ = generation; }

  // ---- outcome
  std::vector<Letter> take_letters() { return std::exchange(letters_, {}); }
  std::deque<Request>& queue() { return queue_; }
  uint64_t slots_done() const { return slots_done_; }  // grows with every answered ask
  Instant next_event() const;
  bool stopping() const { return stopping_; }
  const std::string& stop_reason() const { return stop_reason_; }
  uint64_t dropped() const { return dropped_; }
  RoleStatus status() const;
  Failure failure(std::string_view code, std::string_view what, const std::string& message) const;

 private:
  bool admit_sender(const Envelope& envelope, const std::string& peer);
  void replaced(uint64_t epoch);
  void serve(const std::string& connection, const Envelope& envelope, std::vector<Frame>& frames, Instant now);
  void settle(OpenRequest request, const Envelope& envelope, std::vector<Frame>& frames);
  void refuse_version(const std::string& connection, const EnvelopeHead& head);
  void fail_slot(OpenRequest& request, std::string_view code, const std::string& message);
  void drop(std::string peer, const std::string& why);
  Envelope envelope(std::string_view kind, std::string_view type) const;
  void send_answer(const Inbox::Route& route, uint64_t corr, const KeptAnswer& answer);
  void send_request(const OpenRequest& request, Instant now);

  const NodeOptions& options_;
  const Pulse& pulse_;
  Outbox outbox_;
  Inbox inbox_;
  std::deque<Request> queue_;
  std::vector<Letter> letters_;
  uint64_t epoch_;
  uint64_t generation_ = 0;
  std::map<std::string, uint64_t> incarnations_;  // highest seen, by node
  std::set<std::string> complained_;              // peers whose malformed letters were logged
  uint64_t dropped_ = 0, slots_done_ = 0;
  Instant next_heartbeat_{};
  bool stopping_ = false;
  bool replaced_ = false;  // a driver that has seen the epoch of its successor
  std::string stop_reason_;
};

}  // namespace troupe
