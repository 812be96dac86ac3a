// Time as the runtime sees it: monotonic, behind one virtual call, so that resending, leases and restart limits can be
// tested (and the whole control plane simulated) on virtual time. Wall-clock jumps have no effect on any timeout.
#pragma once

#include <atomic>
#include <chrono>

namespace troupe {

using Instant = std::chrono::steady_clock::time_point;
using Millis = std::chrono::milliseconds;

class Clock {
 public:
  virtual ~Clock() = default;
  virtual Instant now() const = 0;  // any thread
};

class SteadyClock final : public Clock {
 public:
  Instant now() const override { return std::chrono::steady_clock::now(); }
};

// Stands still until advanced.
class ManualClock final : public Clock {
 public:
  Instant now() const override { return Instant(Instant::duration(ticks_.load())); }
  void advance(Millis by) { ticks_ += std::chrono::duration_cast<Instant::duration>(by).count(); }

 private:
  std::atomic<Instant::rep> ticks_{0};
};

}  // namespace troupe
