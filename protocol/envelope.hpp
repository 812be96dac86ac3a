// What stands on every letter: a MessagePack map in a frame of its own, before the body and its attachments:
//   [envelope] [body] [attachment 0] [attachment 1] ...
// docs/protocol.md describes the wire for roles in other languages.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>

#include "protocol/wire.hpp"

namespace troupe {

inline constexpr uint64_t kProtocolVersion = 1;

namespace letter_kind {
inline constexpr std::string_view kRequest = "request";
inline constexpr std::string_view kReply = "reply";      // body: the request's Reply
inline constexpr std::string_view kFailure = "failure";  // body: Failure
inline constexpr std::string_view kAck = "ack";          // the request is being worked on; body: an empty map
}  // namespace letter_kind

struct Envelope {
  uint64_t v = kProtocolVersion;
  std::string kind;          // one of letter_kind
  std::string type;          // kName of the body
  uint64_t id = 0;           // of this request, chosen by the asker; 0 in answers
  uint64_t corr = 0;         // in answers: the id of the request
  std::string run;           // the run's name; letters of another run are dropped
  uint64_t epoch = 0;        // raised by every start of the conductor; older letters are dropped, higher is adopted
  uint64_t gen = 0;          // generation of the collective group the sender belongs to, 0 outside a group
  std::string src;           // the sender's node, "actor/0"
  uint64_t inc = 0;          // the sender's incarnation: process starts of that node in this run
  uint64_t deadline_ms = 0;  // time the asker still waits; 0: it wants no answer (heartbeats)
  uint64_t trace = 0;        // free for the asker; handed back in the answer
  uint64_t done_below = 0;   // the asker has the answers of all its self-numbered requests below this id
  static constexpr std::tuple kFields{Field{"v", &Envelope::v},
                                      Field{"kind", &Envelope::kind},
                                      Field{"type", &Envelope::type},
                                      Field{"id", &Envelope::id},
                                      Field{"corr", &Envelope::corr},
                                      Field{"run", &Envelope::run},
                                      Field{"epoch", &Envelope::epoch},
                                      Field{"gen", &Envelope::gen},
                                      Field{"src", &Envelope::src},
                                      Field{"inc", &Envelope::inc},
                                      Field{"trace", &Envelope::trace},
                                      Field{"deadline_ms", &Envelope::deadline_ms},
                                      Field{"done_below", &Envelope::done_below}};
};
TROUPE_FIELDS_COMPLETE(Envelope);

// What can be known about an envelope of any version, so that a mismatch gets one clear answer instead of silence:
// every version is a map of scalars with v, kind, id and corr.
struct EnvelopeHead {
  uint64_t v = 0;
  std::string kind;
  uint64_t id = 0;
  uint64_t corr = 0;
};

// Throws DecodeError when `frame` is no such map.
EnvelopeHead peek_envelope(const Frame& frame);

}  // namespace troupe
