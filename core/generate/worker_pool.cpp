#include "core/generate/worker_pool.hpp"

#include <immintrin.h>

#include <algorithm>
#include <stdexcept>
#include <string>

namespace troupe {
namespace {

constexpr uint32_t kClosed = 1u << 31;

// Long enough for another thread's piece of a phase and for the engine's bookkeeping between two steps.
constexpr int kSpins = 2000;

template <class Done>
void wait_until(const std::atomic<uint32_t>& value, Done done) {
  uint32_t seen;
  for (int i = 0; i < kSpins; ++i) {
    if (done(value.load(std::memory_order_acquire))) return;
    _mm_pause();
  }
  while (!done(seen = value.load(std::memory_order_acquire))) value.wait(seen, std::memory_order_acquire);
}

}  // namespace

WorkerPool::WorkerPool(int threads) : threads_(threads), inside_(kClosed) {
  if (threads < 1) throw std::invalid_argument("threads is " + std::to_string(threads) + ", expected at least 1");
  for (int t = 1; t < threads; ++t) workers_.emplace_back([this, t] { serve(t); });
}

WorkerPool::~WorkerPool() {
  stopping_.store(true);
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

int64_t WorkerPool::grain(int64_t total, int64_t least) const {
  constexpr int64_t kPiecesPerThread = 4;
  return std::max(least, total / (threads_ * kPiecesPerThread));
}

void WorkerPool::run_erased(int64_t num_phases, bool alone, Erased function, void* work) {
  // Nobody is inside: the pass before was closed and left.
  if (num_phases > phases_capacity_) {
    phases_ = std::make_unique<Phase[]>(static_cast<size_t>(num_phases));
    phases_capacity_ = num_phases;
  }
  for (int64_t i = 0; i < num_phases; ++i) {
    phases_[static_cast<size_t>(i)].claimed.store(0, std::memory_order_relaxed);
    phases_[static_cast<size_t>(i)].done.store(0, std::memory_order_relaxed);
  }
  if (alone || threads_ == 1) return function(work, 0);
  function_ = function;
  work_ = work;
  inside_.store(0, std::memory_order_release);
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  function(work, 0);
  inside_.fetch_or(kClosed, std::memory_order_acq_rel);
  wait_until(inside_, [](uint32_t inside) { return inside == kClosed; });
}

bool WorkerPool::enter() {
  uint32_t inside = inside_.load(std::memory_order_relaxed);
  while (!(inside & kClosed))
    if (inside_.compare_exchange_weak(inside, inside + 1, std::memory_order_acquire)) return true;
  return false;
}

// Consumes rounds; waits for the next; run_erased and the destructor unblock it. A worker that comes late finds the run
// closed, or enters a later one than it was woken for: either is fine.
void WorkerPool::serve(int thread) {
  uint32_t seen = 0;
  for (;;) {
    wait_until(round_, [&](uint32_t round) { return round != seen; });
    seen = round_.load(std::memory_order_acquire);
    if (stopping_.load()) return;
    if (!enter()) continue;
    function_(work_, thread);
    if (inside_.fetch_sub(1, std::memory_order_acq_rel) == kClosed + 1) inside_.notify_all();
  }
}

void WorkerPool::finish(Phase& phase, uint32_t done, uint32_t pieces) {
  if (done && phase.done.fetch_add(done, std::memory_order_acq_rel) + done == pieces) {
    phase.done.notify_all();
    return;
  }
  wait_until(phase.done, [&](uint32_t all) { return all == pieces; });
}

}  // namespace troupe
