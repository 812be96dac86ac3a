// A small face for the runtime's own tests.
#pragma once

#include <string>

#include "actors/runner.hpp"

namespace troupe {

struct Echo {
  static constexpr std::string_view kName = "echo";
  using Reply = Echo;
  std::string text;
  Attachment data;
  static constexpr std::tuple kFields{Field{"text", &Echo::text}, Field{"data", &Echo::data}};
};
TROUPE_FIELDS_COMPLETE(Echo);

struct Count {  // how often Echo was handled
  static constexpr std::string_view kName = "count";
  using Reply = Ack;
  static constexpr std::tuple<> kFields{};
};

struct EchoFace {
  using Accepts = Messages<Echo, Count>;
};

}  // namespace troupe
