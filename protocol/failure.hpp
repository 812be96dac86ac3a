// What may go wrong across a process boundary. A role throws std::exception inside its process; the runner turns it
// into a Failure, the only error that travels; the asker's get() throws RemoteFailure.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>

#include "protocol/fields.hpp"

namespace troupe {

// Codes are strings on the wire, so that a role in another language can produce them.
namespace failure_code {
inline constexpr std::string_view kBadRequest = "bad_request";      // the message's values make no sense to the role
inline constexpr std::string_view kUnknownType = "unknown_type";    // the role does not serve this message
inline constexpr std::string_view kVersion = "protocol_version";    // envelope.v differs from the role's own
inline constexpr std::string_view kFenced = "fenced";               // run, epoch or generation is not the current one
inline constexpr std::string_view kStaleWeights = "stale_weights";  // the actor holds another policy version
inline constexpr std::string_view kBehind = "behind";               // the learner has not applied the preceding steps
inline constexpr std::string_view kHandler = "handler";             // the handler threw
inline constexpr std::string_view kDeadline = "deadline";    // no reply within the ask's deadline (made at the asker)
inline constexpr std::string_view kCancelled = "cancelled";  // the asker withdrew the request
inline constexpr std::string_view kStopping = "stopping";    // the role is shutting down
}  // namespace failure_code

struct Failure {
  std::string code;     // one of failure_code
  std::string node;     // who failed, "learner/0"
  std::string what;     // operation and step, "update step 12"
  std::string message;  // the reason, one line
  static constexpr std::tuple kFields{Field{"code", &Failure::code}, Field{"node", &Failure::node},
                                      Field{"what", &Failure::what}, Field{"message", &Failure::message}};
};
TROUPE_FIELDS_COMPLETE(Failure);

// Thrown by Pending::get() at the asker.
class RemoteFailure : public std::runtime_error {
 public:
  explicit RemoteFailure(Failure failure);
  const Failure& failure() const { return failure_; }
  bool is(std::string_view code) const { return failure_.code == code; }

 private:
  Failure failure_;
};

}  // namespace troupe
