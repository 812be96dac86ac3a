// Asking another node, typed: Handle<Face> refuses at compile time what the face does not accept. Context is what a
// role sees of its own node.
//
//   Handle<ActorFace> actor = context.handle<ActorFace>("actor/0");
//   Pending<Rollouts> pending = actor.ask(Generate{...}, {.deadline = 60s, .what = "generate draw 12"});
//   Rollouts rollouts = pending.get();                       // throws RemoteFailure
//
// Handles and Pendings refer to the node's Mailbox and must not outlive it. A Pending is moved, not copied; dropping
// one withdraws the ask (no more resends). Use them from the working thread.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "actors/mailbox.hpp"
#include "protocol/faces.hpp"

namespace troupe {

template <class Reply>
class Pending {
 public:
  Pending() = default;
  Pending(Mailbox& mailbox, std::shared_ptr<AnswerSlot> slot) : mailbox_(&mailbox), slot_(std::move(slot)) {}
  Pending(Pending&& other) noexcept = default;
  Pending& operator=(Pending&& other) noexcept {
    withdraw();
    mailbox_ = other.mailbox_;
    slot_ = std::move(other.slot_);
    return *this;
  }
  ~Pending() { withdraw(); }

  bool valid() const { return slot_ != nullptr; }  // false after get() and for a default-constructed one
  bool ready() const { return mailbox_->done(*slot_); }
  const std::string& peer() const { return slot_->peer; }
  const std::string& what() const { return slot_->what; }

  // True when the answer (or its failure) is there; beats the lease while waiting.
  bool wait_until(Instant until) { return mailbox_->wait_any({&slot_, 1}, until).has_value(); }

  // Waits for the answer, at most until the ask's deadline. Throws RemoteFailure: the peer's Failure, kDeadline, or
  // kHandler when the answer can't be decoded. Once only.
  Reply get() {
    wait_until(Instant::max());
    const std::shared_ptr<AnswerSlot> slot = std::exchange(slot_, nullptr);
    if (slot->failure) throw RemoteFailure(*slot->failure);
    try {
      if (slot->type != Reply::kName)
        throw DecodeError("answered with '" + slot->type + "', expected '" + std::string(Reply::kName) + "'");
      return decode<Reply>(slot->body, slot->attachments);
    } catch (const DecodeError& error) {
      throw RemoteFailure({std::string(failure_code::kHandler), slot->peer, slot->what,
                           std::string("malformed answer: ") + error.what()});
    }
  }

  const std::shared_ptr<AnswerSlot>& slot() const { return slot_; }

 private:
  void withdraw() {
    if (slot_) mailbox_->forget(std::exchange(slot_, nullptr));
  }
  Mailbox* mailbox_ = nullptr;
  std::shared_ptr<AnswerSlot> slot_;
};

template <class Face>
class Handle {
 public:
  Handle(Mailbox& mailbox, std::string peer) : mailbox_(&mailbox), peer_(std::move(peer)) {}

  template <class M>
  requires accepts<M, Face> Pending<typename M::Reply> ask(const M& message, const AskOptions& options = {})
  const { return {*mailbox_, mailbox_->ask(peer_, M::kName, encode(message), options)}; }
  const std::string& peer() const { return peer_; }

 private:
  Mailbox* mailbox_;
  std::string peer_;
};

// The same message to every replica of a role.
template <class Face, class M>
std::vector<Pending<typename M::Reply>> ask_all(const std::vector<Handle<Face>>& handles, const M& message,
                                                const AskOptions& options = {}) {
  std::vector<Pending<typename M::Reply>> pendings;
  pendings.reserve(handles.size());
  for (const auto& handle : handles) pendings.push_back(handle.ask(message, options));
  return pendings;
}

// What a role may do with its own node.
class Context {
 public:
  explicit Context(Mailbox& mailbox) : mailbox_(&mailbox) {}

  const std::string& node() const { return mailbox_->options().node; }
  uint64_t incarnation() const { return mailbox_->options().incarnation; }

  Instant now() const { return mailbox_->now(); }
  double seconds_since(Instant from) const { return std::chrono::duration<double>(now() - from).count(); }

  // "I am alive and doing this": resets the lease. Call it at every phase and at least every few seconds within a long
  // one; costs well under a microsecond without a detail.
  void beat() { mailbox_->beat(); }
  void beat(std::string_view phase, std::string_view detail = {}) { mailbox_->beat(phase, detail); }
  bool stopping() const { return mailbox_->stopping(); }
  std::string stop_reason() const { return mailbox_->stop_reason(); }

  template <class Face>
  Handle<Face> handle(const std::string& peer) const {
    return Handle<Face>(*mailbox_, peer);
  }
  template <class Face>
  std::vector<Handle<Face>> handles(const std::vector<std::string>& peers) const {
    std::vector<Handle<Face>> handles;
    for (const std::string& peer : peers) handles.push_back(handle<Face>(peer));
    return handles;
  }

  // The index of a ready one among the valid pendings, waiting at most `timeout`; nothing when none became ready (or
  // none is valid). Beats the lease while waiting.
  template <class Reply>
  std::optional<std::size_t> wait_any(std::span<const Pending<Reply>> pendings, Millis timeout) {
    std::vector<std::shared_ptr<AnswerSlot>> slots;
    std::vector<std::size_t> index;
    for (std::size_t i = 0; i < pendings.size(); ++i) {
      if (!pendings[i].valid()) continue;
      slots.push_back(pendings[i].slot());
      index.push_back(i);
    }
    if (slots.empty()) return std::nullopt;
    const auto ready = mailbox_->wait_any(slots, now() + timeout);
    return ready ? std::optional(index[*ready]) : std::nullopt;
  }
  template <class Reply>
  std::optional<std::size_t> wait_any(const std::vector<Pending<Reply>>& pendings, Millis timeout) {
    return wait_any(std::span<const Pending<Reply>>(pendings), timeout);
  }

  Mailbox& mailbox() const { return *mailbox_; }

 private:
  Mailbox* mailbox_;
};

}  // namespace troupe
