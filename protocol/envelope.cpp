#include "protocol/envelope.hpp"

namespace troupe {

EnvelopeHead peek_envelope(const Frame& frame) {
  constexpr uint64_t kAny = std::numeric_limits<uint64_t>::max();
  wire::Reader in(frame.bytes, {}, "envelope");
  EnvelopeHead head;
  bool has_version = false;
  const std::size_t count = in.map();
  for (std::size_t i = 0; i < count; ++i) {
    const std::string_view key = in.string();
    in.path.enter(key);
    if (key == "v") {
      head.v = in.unsigned_integer(kAny);
      has_version = true;
    } else if (key == "kind") {
      head.kind = in.string();
    } else if (key == "id") {
      head.id = in.unsigned_integer(kAny);
    } else if (key == "corr") {
      head.corr = in.unsigned_integer(kAny);
    } else {
      in.skip_scalar();
    }
    in.path.leave();
  }
  in.finish();
  if (!has_version) in.refuse("missing key v");
  return head;
}

}  // namespace troupe
