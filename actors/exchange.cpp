#include "actors/exchange.hpp"

#include <algorithm>

namespace troupe {
namespace {

Letter letter(bool to_peer, std::string address, const Envelope& envelope, const Encoded& message) {
  Letter out{to_peer, std::move(address), {encode(envelope).body, message.body}};
  out.frames.insert(out.frames.end(), message.attachments.begin(), message.attachments.end());
  return out;
}

const Encoded& empty_body() {
  static const Encoded body = encode(Status{});  // an empty map
  return body;
}

}  // namespace

void Pulse::beat(std::string_view phase, std::string_view detail) {
  beat();
  const std::lock_guard lock(mutex_);
  phase_ = phase;
  detail_ = detail;
}

void Pulse::fill(RoleStatus& status) const {
  const std::lock_guard lock(mutex_);
  status.progress = progress_.load(std::memory_order_relaxed);
  status.phase = phase_;
  status.detail = detail_;
}

Exchange::Exchange(const NodeOptions& options, const Pulse& pulse)
    : options_(options),
      pulse_(pulse),
      outbox_(options.incarnation, options.resend_first, options.resend_cap),
      epoch_(options.epoch) {}

RoleStatus Exchange::status() const {
  RoleStatus status;
  status.node = options_.node;
  status.incarnation = options_.incarnation;
  status.dropped_frames = dropped_;
  pulse_.fill(status);
  return status;
}

Failure Exchange::failure(std::string_view code, std::string_view what, const std::string& message) const {
  return {std::string(code), options_.node, std::string(what), message};
}

// `peer` may be a routing id that a stranger chose.
void Exchange::drop(std::string peer, const std::string& why) {
  ++dropped_;
  peer.resize(std::min<std::size_t>(peer.size(), 64));
  for (char& c : peer)
    if (c < ' ' || c > '~') c = '?';
  if (complained_.size() < 1024 && complained_.insert(peer).second)
    options_.log(options_.node + ": dropped a letter from " + peer + ": " + why + " (later ones are only counted)");
}

// ---- letters in ---------------------------------------------------------------------------------------------------

// Fencing: true when the letter is of this run, this epoch or a newer one, and of its sender's newest incarnation.
// The runtime's own messages pass whatever their epoch: a role learns of a new one only when the new conductor asks it,
// and must neither be taken for dead nor be deaf to Stop until then.
bool Exchange::admit_sender(const Envelope& envelope, const std::string& peer) {
  if (envelope.run != options_.run) return drop(peer, "it belongs to run '" + envelope.run + "'"), false;
  const bool of_runtime = envelope.type == Heartbeat::kName || envelope.type == Status::kName ||
                          envelope.type == Stop::kName || envelope.type == AskRun::kName;
  if (envelope.epoch < epoch_ && !of_runtime)
    return drop(peer, "its epoch " + std::to_string(envelope.epoch) + " is over"), false;
  if (envelope.epoch > epoch_ && options_.drives && !of_runtime) return replaced(envelope.epoch), false;
  if (!options_.drives) epoch_ = std::max(epoch_, envelope.epoch);
  uint64_t& newest = incarnations_[envelope.src];
  if (envelope.inc < newest) return drop(peer, envelope.src + " has been replaced since"), false;
  newest = envelope.inc;
  return true;
}

void Exchange::replaced(uint64_t epoch) {
  ++dropped_;
  replaced_ = true;
  const std::string reason = "replaced by a newer conductor, epoch " + std::to_string(epoch);
  for (OpenRequest& request : outbox_.take_all()) fail_slot(request, failure_code::kFenced, reason);
  stop(reason);
}

void Exchange::request_arrived(const std::string& connection, const std::string& authenticated,
                               std::vector<Frame> frames, Instant now) {
  if (frames.size() < 2) return drop(connection, "it has no body");
  Envelope envelope;
  try {
    envelope = decode<Envelope>(frames[0]);
  } catch (const DecodeError& error) {
    try {  // another version's envelope may have other keys
      const EnvelopeHead head = peek_envelope(frames[0]);
      if (head.v != kProtocolVersion) return refuse_version(connection, head);
    } catch (const DecodeError&) {
    }
    return drop(connection, error.what());
  }
  if (envelope.v != kProtocolVersion)
    return refuse_version(connection, {envelope.v, envelope.kind, envelope.id, envelope.corr});
  if (!authenticated.empty() && envelope.src != authenticated)
    return drop(authenticated, "it claims to come from " + envelope.src);
  if (envelope.kind != letter_kind::kRequest) return drop(connection, "a request was expected");
  if (!admit_sender(envelope, connection)) return;
  serve(connection, envelope, frames, now);
}

void Exchange::refuse_version(const std::string& connection, const EnvelopeHead& head) {
  drop(connection, "it speaks protocol version " + std::to_string(head.v));
  if (head.kind != letter_kind::kRequest) return;
  const std::string text = options_.node + " speaks protocol version " + std::to_string(kProtocolVersion) +
                           ", the asker " + std::to_string(head.v);
  send_answer({connection, 0}, head.id,
              {std::string(letter_kind::kFailure), "failure", encode(failure(failure_code::kVersion, "", text))});
}

void Exchange::serve(const std::string& connection, const Envelope& envelope, std::vector<Frame>& frames, Instant now) {
  const bool wants_answer = envelope.deadline_ms > 0;
  const Inbox::Route route{connection, envelope.trace};
  if (envelope.type == Status::kName)
    return send_answer(route, envelope.id,
                       {std::string(letter_kind::kReply), std::string(RoleStatus::kName), encode(status())});
  if (wants_answer) {
    inbox_.done_below(envelope.src, envelope.done_below);
    switch (inbox_.admit(envelope.src, envelope.id, route)) {
      case Inbox::Admission::kDone:
        return;
      case Inbox::Admission::kInFlight:
        return send_answer(route, envelope.id, {std::string(letter_kind::kAck), envelope.type, empty_body()});
      case Inbox::Admission::kAnswered:
        return send_answer(route, envelope.id, *inbox_.kept(envelope.src, envelope.id));
      case Inbox::Admission::kNew:
        break;
    }
  }
  if (envelope.type == Stop::kName) {
    std::string reason = "asked by " + envelope.src;
    try {
      reason = decode<Stop>(frames[1]).reason;
    } catch (const DecodeError& error) {
      drop(connection, error.what());  // it still means stop
    }
    stop(reason);
    return answer(envelope.src, envelope.id,
                  {std::string(letter_kind::kReply), std::string(Ack::kName), encode(Ack{})});
  }
  const auto refuse = [&](std::string_view code, const std::string& text) {
    answer(envelope.src, envelope.id,
           {std::string(letter_kind::kFailure), "failure", encode(failure(code, envelope.type, text))});
  };
  if (options_.drives) return refuse(failure_code::kUnknownType, "this role does not serve '" + envelope.type + "'");
  if (stopping_) return refuse(failure_code::kStopping, "the role is stopping");
  if (queue_.size() >= kMaxQueued) {
    if (wants_answer) inbox_.release(envelope.src, envelope.id);
    return drop(connection, "too many requests are waiting");
  }
  Request request{envelope.src, envelope.id, envelope.trace, envelope.type, frames[1], {}, Instant::max()};
  request.attachments.assign(frames.begin() + 2, frames.end());
  if (wants_answer) request.expires = now + Millis(std::min<uint64_t>(envelope.deadline_ms, 1'000'000'000));
  queue_.push_back(std::move(request));
}

void Exchange::answer_arrived(const std::string& peer, std::vector<Frame> frames, Instant now) {
  if (frames.size() < 2) return drop(peer, "it has no body");
  Envelope envelope;
  try {
    const EnvelopeHead head = peek_envelope(frames[0]);
    if (head.v != kProtocolVersion) {
      drop(peer, "it speaks protocol version " + std::to_string(head.v));
      if (auto request = outbox_.close(peer, head.corr))
        fail_slot(*request, failure_code::kVersion,
                  peer + " speaks protocol version " + std::to_string(head.v) + ", this role " +
                      std::to_string(kProtocolVersion));
      return;
    }
    envelope = decode<Envelope>(frames[0]);
  } catch (const DecodeError& error) {
    return drop(peer, error.what());
  }
  if (envelope.src != peer) return drop(peer, "it claims to come from " + envelope.src);
  if (!admit_sender(envelope, peer)) return;
  if (envelope.kind == letter_kind::kAck) {
    if (OpenRequest* request = outbox_.find(peer, envelope.corr)) outbox_.acknowledged(*request, now);
    return;
  }
  if (envelope.kind != letter_kind::kReply && envelope.kind != letter_kind::kFailure)
    return drop(peer, "an answer was expected");
  if (auto request = outbox_.close(peer, envelope.corr)) settle(std::move(*request), envelope, frames);
}

// An answer of any content ends the request; what is malformed in it becomes its Failure, not an endless resend.
void Exchange::settle(OpenRequest request, const Envelope& envelope, std::vector<Frame>& frames) {
  AnswerSlot& slot = *request.slot;
  if (envelope.kind == letter_kind::kFailure) {
    try {
      Failure failure = decode<Failure>(frames[1]);
      fail_slot(request, failure.code, failure.message);
    } catch (const DecodeError& error) {
      fail_slot(request, failure_code::kHandler, std::string("malformed answer: ") + error.what());
    }
    return;
  }
  slot.type = envelope.type;
  slot.body = std::move(frames[1]);
  slot.attachments.assign(std::make_move_iterator(frames.begin() + 2), std::make_move_iterator(frames.end()));
  slot.done = true;
  ++slots_done_;
}

void Exchange::fail_slot(OpenRequest& request, std::string_view code, const std::string& message) {
  request.slot->failure = Failure{std::string(code), request.peer, request.slot->what, message};
  request.slot->done = true;
  ++slots_done_;
}

// ---- letters out --------------------------------------------------------------------------------------------------

Envelope Exchange::envelope(std::string_view kind, std::string_view type) const {
  Envelope envelope;
  envelope.kind = kind;
  envelope.type = type;
  envelope.run = options_.run;
  envelope.epoch = epoch_;
  envelope.gen = generation_;
  envelope.src = options_.node;
  envelope.inc = options_.incarnation;
  return envelope;
}

void Exchange::send_answer(const Inbox::Route& route, uint64_t corr, const KeptAnswer& answer) {
  Envelope head = envelope(answer.kind, answer.type);
  head.corr = corr;
  head.trace = route.trace;
  letters_.push_back(letter(false, route.connection, head, answer.message));
}

void Exchange::send_request(const OpenRequest& request, Instant now) {
  Envelope head = envelope(letter_kind::kRequest, request.type);
  head.id = request.id;
  head.trace = request.trace;
  head.done_below = outbox_.done_below(request.peer);
  const auto left = std::chrono::ceil<Millis>(request.deadline - now);
  head.deadline_ms = static_cast<uint64_t>(std::max<Millis::rep>(1, left.count()));
  letters_.push_back(letter(true, request.peer, head, request.message));
}

void Exchange::ask(OpenRequest request, Instant now) {
  if (replaced_) return fail_slot(request, failure_code::kFenced, stop_reason_);
  outbox_.add(std::move(request), now);
  tick(now);
}

void Exchange::answer(const std::string& src, uint64_t id, KeptAnswer answer) {
  const auto route = inbox_.answered(src, id, std::move(answer));
  if (route) send_answer(*route, id, *inbox_.kept(src, id));
}

// ---- time ---------------------------------------------------------------------------------------------------------

void Exchange::tick(Instant now) {
  for (OpenRequest& request : outbox_.take_expired(now)) {
    const auto waited = std::chrono::duration_cast<Millis>(request.deadline - request.asked).count();
    fail_slot(request, failure_code::kDeadline,
              "no answer to " + options_.node + " within " + std::to_string(waited) + " ms, sent " +
                  std::to_string(request.times_sent) + " times, " +
                  (request.acknowledged ? "acknowledged" : "never acknowledged"));
  }
  for (const OpenRequest* request : outbox_.take_due(now)) send_request(*request, now);
  if (!options_.supervisor.empty() && now >= next_heartbeat_) {
    next_heartbeat_ = now + options_.heartbeat_every;
    Envelope head = envelope(letter_kind::kRequest, Heartbeat::kName);
    letters_.push_back(letter(true, options_.supervisor, head, encode(Heartbeat{status()})));
  }
}

Instant Exchange::next_event() const {
  const Instant heartbeat = options_.supervisor.empty() ? Instant::max() : next_heartbeat_;
  return std::min(outbox_.next_event(), heartbeat);
}

void Exchange::stop(const std::string& reason) {
  if (stopping_) return;
  stopping_ = true;
  stop_reason_ = reason;
  for (const Request& request : std::exchange(queue_, {}))
    answer(request.src, request.id,
           {std::string(letter_kind::kFailure), "failure",
            encode(failure(failure_code::kStopping, request.type, "the role is stopping"))});
}

void Exchange::close() {
  for (OpenRequest& request : outbox_.take_all())
    fail_slot(request, failure_code::kStopping, "the asking node has closed");
}

}  // namespace troupe
