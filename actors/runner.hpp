// The loop of a role. serve() alternates: handle every request that has arrived, then one slice of work(); when there
// is neither, it waits idle. So between two decode steps of an actor new requests (weights, cancellation, prompts) are
// handled. One thread calls everything, nothing in a role is locked.
//
// A role is a class with
//   using Face = ActorFace;                              // what it serves
//   Reply handle(const M&);                              // for each message M of the face: answer at once,
//   void handle(const M&, Responder<M>);                 // or later, from a later slice of work()
//   bool work();                                         // optional: a bounded slice; true when there is more to do
//   void stop(const std::string& reason);                // optional: on Stop, before the loop ends
// An exception from handle() becomes the asker's Failure: std::invalid_argument kBadRequest, RemoteFailure (of an ask
// the handler made) its own, anything else kHandler. An exception from work() or stop(), and Unusable from handle(),
// end the process's loop: they are rethrown by serve().
#pragma once

#include <concepts>
#include <exception>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include "actors/fault_hooks.hpp"
#include "actors/handle.hpp"

namespace troupe {

// A handler broke off and has left the role in a state that nobody may go on from. The request stays unanswered: it is
// sent again to the process that takes this one's place.
struct Unusable : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The right to answer one request, later if need be. Movable; dropped without an answer, the asker gets kHandler (or
// kStopping when the node is stopping); dropped by an exception, it leaves the answer to the runner, or to the next
// incarnation. Must not outlive the Mailbox.
template <class M>
class Responder {
 public:
  Responder(Mailbox& mailbox, Request request) : mailbox_(&mailbox), request_(std::move(request)) {}
  Responder(Responder&& other) noexcept
      : mailbox_(std::exchange(other.mailbox_, nullptr)), request_(std::move(other.request_)) {}
  Responder& operator=(Responder&& other) noexcept {
    drop();
    mailbox_ = std::exchange(other.mailbox_, nullptr);
    request_ = std::move(other.request_);
    return *this;
  }
  ~Responder() { drop(); }

  void reply(const typename M::Reply& reply) {
    Mailbox* mailbox = take();
    fault_point("reply");
    try {
      mailbox->answer(request_, M::Reply::kName, encode(reply));
    } catch (const std::invalid_argument& error) {  // a NaN, or an attachment that contradicts itself
      mailbox->fail(request_, failure_code::kHandler, error.what());
    }
  }
  void fail(std::string_view code, const std::string& message) { take()->fail(request_, code, message); }
  const std::string& src() const { return request_.src; }  // who asked

 private:
  Mailbox* take() {
    if (!mailbox_) throw std::logic_error("a request was answered twice");
    return std::exchange(mailbox_, nullptr);
  }
  void drop() noexcept {
    if (!mailbox_ || std::uncaught_exceptions() > 0) return;
    const bool stopping = mailbox_->stopping();
    std::exchange(mailbox_, nullptr)
        ->fail(request_, stopping ? failure_code::kStopping : failure_code::kHandler,
               stopping ? "the role is stopping" : "the role dropped the request without an answer");
  }
  Mailbox* mailbox_;
  Request request_;
};

template <class R, class M>
concept AnswersAtOnce = requires(R role, const M& message) {
  { role.handle(message) } -> std::same_as<typename M::Reply>;
};
template <class R, class M>
concept AnswersLater = requires(R role, const M& message, Responder<M> responder) {
  { role.handle(message, std::move(responder)) } -> std::same_as<void>;
};

namespace detail {
template <class R, class... M>
constexpr bool serves_all(Messages<M...>) {
  return ((AnswersAtOnce<R, M> || AnswersLater<R, M>)&&...);
}
}  // namespace detail

// R has a handler for every message of the face.
template <class R, class Face>
concept Serves = detail::serves_all<R>(typename Face::Accepts{});

namespace detail {

// Turns what handle() threw into the failure the asker gets. The one place where a role's exceptions are caught.
template <class Respond>
void guarded(Respond respond, const auto& fail) {
  try {
    respond();
  } catch (const Unusable&) {
    throw;
  } catch (const RemoteFailure& error) {
    fail(error.failure().code, error.what());
  } catch (const DecodeError& error) {
    fail(failure_code::kBadRequest, error.what());
  } catch (const std::invalid_argument& error) {
    fail(failure_code::kBadRequest, error.what());
  } catch (const std::exception& error) {
    fail(failure_code::kHandler, error.what());
  }
}

template <class M, class R>
bool handle_as(R& role, Mailbox& mailbox, const Request& request) {
  if (request.type != M::kName) return false;
  const auto fail = [&](std::string_view code, const std::string& message) { mailbox.fail(request, code, message); };
  mailbox.beat(M::kName);
  fault_point("request");
  guarded(
      [&] {
        const M message = decode<M>(request.body, request.attachments);
        if constexpr (AnswersLater<R, M>) {
          role.handle(message, Responder<M>(mailbox, request));
        } else {
          Encoded reply = encode(role.handle(message));
          fault_point("reply");
          mailbox.answer(request, M::Reply::kName, std::move(reply));
        }
      },
      fail);
  return true;
}

template <class R, class... M>
bool handle_any(R& role, Mailbox& mailbox, const Request& request, Messages<M...>) {
  return (handle_as<M>(role, mailbox, request) || ...);
}

}  // namespace detail

// Has the role handle one request.
template <class R>
requires Serves<R, typename R::Face>
void dispatch(R& role, Mailbox& mailbox, const Request& request) {
  if (!detail::handle_any(role, mailbox, request, typename R::Face::Accepts{}))
    mailbox.fail(request, failure_code::kUnknownType, "this role does not serve '" + request.type + "'");
}

// Serves until the node is told to stop.
template <class R>
requires Serves<R, typename R::Face>
void serve(R& role, Context& context) {
  Mailbox& mailbox = context.mailbox();
  bool busy = false;
  while (!mailbox.stopping()) {
    const Instant now = mailbox.now();
    if (!busy) {
      mailbox.beat("idle");
      fault_point("idle");
    }
    // The idle loop beats itself: it must come round well within the idle lease.
    if (const auto request = mailbox.next(busy ? now : now + Millis(500))) {
      dispatch(role, mailbox, *request);
      busy = true;
      continue;
    }
    busy = false;
    if constexpr (requires {
                    { role.work() } -> std::same_as<bool>;
                  }) {
      busy = role.work();
      mailbox.beat();
    }
  }
  if constexpr (requires { role.stop(std::string()); }) role.stop(mailbox.stop_reason());
}

// Runs a role that asks and does not serve (the conductor): straight-line code in void run(Context&).
template <class D>
void drive(D& role, Context& context) {
  role.run(context);
}

}  // namespace troupe
