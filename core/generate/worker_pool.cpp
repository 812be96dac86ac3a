#include "core/generate/worker_pool.hpp"

#include <immintrin.h>

#include <stdexcept>

namespace troupe {
namespace {

// Long enough for the other threads' share of a phase and for the engine's bookkeeping between two steps.
constexpr int kSpins = 2000;

void wait_while(const std::atomic<uint32_t>& value, uint32_t old) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    _mm_pause();
  }
  while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
}

}  // namespace

WorkerPool::WorkerPool(int threads) : threads_(threads) {
  if (threads < 1) throw std::invalid_argument("threads is " + std::to_string(threads) + ", expected at least 1");
  for (int t = 1; t < threads; ++t) workers_.emplace_back([this, t] { serve(t); });
}

WorkerPool::~WorkerPool() {
  stopping_ = true;
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void WorkerPool::run_erased(Erased function, void* work) {
  function_ = function;
  work_ = work;
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  function(work, 0);
  barrier();
}

// Consumes rounds; waits for the next; run_erased and the destructor unblock it.
void WorkerPool::serve(int thread) {
  uint32_t seen = 0;
  for (;;) {
    wait_while(round_, seen);
    ++seen;
    if (stopping_) return;
    function_(work_, thread);
    barrier();
  }
}

void WorkerPool::barrier() {
  if (threads_ == 1) return;
  const uint32_t now = passed_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
    arrived_.store(0, std::memory_order_relaxed);
    passed_.store(now + 1, std::memory_order_release);
    passed_.notify_all();
  } else {
    wait_while(passed_, now);
  }
}

Share WorkerPool::share(int64_t n, int thread, int64_t unit) const {
  const int64_t units = (n + unit - 1) / unit;
  const int64_t begin = units * thread / threads_ * unit, end = units * (thread + 1) / threads_ * unit;
  return {begin < n ? begin : n, end < n ? end : n};
}

}  // namespace troupe
