// Threads that work on one pass together. A run is a sequence of phases; a phase's items are claimed piece by piece by
// whoever is there, and it is over when all items are done, not when all threads have come by: a thread that the system
// took the processor from holds up at most the piece it had claimed. Waiting threads spin shortly, then sleep, so an
// idle engine costs nothing.
//
// One thread owns the pool and calls run(); it takes part as thread 0, and alone gets everything done if no other
// comes. An exception must not leave the work.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

namespace troupe {

class WorkerPool {
 public:
  explicit WorkerPool(int threads);  // >= 1, the caller included
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  int threads() const { return threads_; }

  // Calls work(thread) on the caller (thread 0) and, unless `alone`, on the others that are free in time; returns when
  // all that began have returned. Each calls phase() for 0, 1, ... num_phases - 1 in order.
  template <class Work>
  void run(int64_t num_phases, bool alone, Work&& work) {
    run_erased(
        num_phases, alone, [](void* w, int thread) { (*static_cast<std::remove_reference_t<Work>*>(w))(thread); },
        &work);
  }

  // Takes part in phase `index` of `total` items: calls piece(begin, end) for pieces of at most `grain` items, and
  // returns when all items are done, whoever did them. All threads give the same total and grain.
  template <class Piece>
  void phase(int64_t index, int64_t total, int64_t grain, Piece&& piece) {
    Phase& p = phases_[static_cast<size_t>(index)];
    uint32_t done = 0;
    const auto pieces = static_cast<uint32_t>((total + grain - 1) / grain);
    for (uint32_t i; (i = p.claimed.fetch_add(1, std::memory_order_relaxed)) < pieces; ++done)
      piece(i * grain, i + 1 < pieces ? (i + 1) * grain : total);
    finish(p, done, pieces);
  }

  // A grain that gives every thread several pieces of at least `least` items.
  int64_t grain(int64_t total, int64_t least) const;

 private:
  struct alignas(64) Phase {
    std::atomic<uint32_t> claimed{0}, done{0};  // pieces
  };
  using Erased = void (*)(void*, int);
  void run_erased(int64_t num_phases, bool alone, Erased function, void* work);
  void serve(int thread);
  bool enter();
  static void finish(Phase& phase, uint32_t done, uint32_t pieces);

  const int threads_;
  Erased function_ = nullptr;
  void* work_ = nullptr;
  std::atomic<bool> stopping_{false};
  std::unique_ptr<Phase[]> phases_;
  int64_t phases_capacity_ = 0;
  alignas(64) std::atomic<uint32_t> round_{0};  // counts run() calls; workers wait for the next
  alignas(64) std::atomic<uint32_t> inside_;    // workers in the run; kClosed: none may enter
  std::vector<std::thread> workers_;
};

}  // namespace troupe
