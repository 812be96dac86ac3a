#include "protocol/failure.hpp"

#include <utility>

namespace troupe {

RemoteFailure::RemoteFailure(Failure f)
    : std::runtime_error(f.node + ": " + f.what + ": " + f.message + " [" + f.code + "]"), failure_(std::move(f)) {}

}  // namespace troupe
