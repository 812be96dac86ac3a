// At-least-once delivery without sockets, threads or clocks: what is still unanswered at the asker (Outbox) and what
// was taken and answered at the receiver (Inbox). Both are fed with the time. Not thread-safe; Exchange owns one of
// each.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "actors/clock.hpp"
#include "protocol/wire.hpp"

namespace troupe {

struct AnswerSlot;

// Ids below this are the callers' stable ones; the outbox numbers from (incarnation << 40) + 1.
inline constexpr uint64_t kFirstOwnId = uint64_t{1} << 40;

// A request until its answer, its deadline, or its withdrawal.
struct OpenRequest {
  std::string peer;
  uint64_t id = 0;
  uint64_t trace = 0;
  std::string type;
  Encoded message;
  std::shared_ptr<AnswerSlot> slot;
  Instant asked{}, deadline{}, next_send{};
  Millis gap{};
  int times_sent = 0;
  bool acknowledged = false;
};

class Outbox {
 public:
  Outbox(uint64_t incarnation, Millis resend_first, Millis resend_cap)
      : next_id_((incarnation << 40) + 1), first_(resend_first), cap_(resend_cap) {}

  // `request.id` 0 gets a number. Due at once. Throws std::invalid_argument when the id is already open at this peer.
  OpenRequest& add(OpenRequest request, Instant now);
  OpenRequest* find(const std::string& peer, uint64_t id);
  void acknowledged(OpenRequest& request, Instant now);  // the receiver works on it: the slow rhythm from now on
  // Removes and returns it; nothing when it is not open (a late or repeated answer).
  std::optional<OpenRequest> close(const std::string& peer, uint64_t id);
  void withdraw(const AnswerSlot* slot);
  std::vector<OpenRequest> take_all();

  // Marks what is due as sent and returns it (pointers good until the next change).
  std::vector<OpenRequest*> take_due(Instant now);
  std::vector<OpenRequest> take_expired(Instant now);
  Instant next_event() const;  // Instant::max() when nothing is open

  // Every self-numbered request to `peer` below this id has been closed.
  uint64_t done_below(const std::string& peer) const;

 private:
  std::map<std::pair<std::string, uint64_t>, OpenRequest> open_;
  uint64_t next_id_;
  Millis first_, cap_;
};

// An answer as it was sent, kept for the case that it was lost.
struct KeptAnswer {
  std::string kind;  // letter_kind::kReply or kFailure
  std::string type;
  Encoded message;
};

class Inbox {
 public:
  enum class Admission { kNew, kInFlight, kAnswered, kDone };  // kDone: the asker has the answer, a late copy
  static constexpr std::size_t kMaxKept = 1024;
  static constexpr std::size_t kMaxKeptBytes = std::size_t{256} << 20;

  // Where an answer goes: the connection the request last came by.
  struct Route {
    std::string connection;
    uint64_t trace = 0;
  };

  Admission admit(const std::string& src, uint64_t id, Route route);
  // Forgets a request admitted but not taken (the queue is full): a resend is new again.
  void release(const std::string& src, uint64_t id) { entries_.erase({src, id}); }
  // Records the answer; the route to send it by, or nothing when the request is not in flight (answered already).
  std::optional<Route> answered(const std::string& src, uint64_t id, KeptAnswer answer);
  const KeptAnswer* kept(const std::string& src, uint64_t id) const;
  // The asker has these answers: drops its kept ones with kFirstOwnId <= id < below.
  void done_below(const std::string& src, uint64_t below);

 private:
  struct Entry {
    Route route;
    std::optional<KeptAnswer> answer;
  };
  using Key = std::pair<std::string, uint64_t>;
  void drop_oldest();
  std::map<Key, Entry> entries_;
  std::map<std::string, uint64_t> done_;  // by asker, highest done_below seen
  std::deque<Key> kept_order_;            // may name entries that are gone
  std::size_t kept_count_ = 0, kept_bytes_ = 0;
};

}  // namespace troupe
