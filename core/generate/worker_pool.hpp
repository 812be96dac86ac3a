// Threads that work on one forward pass together: run() gives the same function to all of them, and barrier() inside it
// separates the phases. Waiting threads spin shortly, then sleep, so an idle engine costs nothing.
//
// One thread owns the pool and calls run(); it takes part as thread 0. barrier() is called by every thread inside run()
// the same number of times. An exception must not leave the function.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace troupe {

struct Share {  // [begin, end) of a range
  int64_t begin = 0, end = 0;
};

class WorkerPool {
 public:
  explicit WorkerPool(int threads);  // >= 1, the caller included
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  int threads() const { return threads_; }

  // Calls work(thread) with thread = 0 .. threads - 1 at the same time; returns when all have returned.
  template <class Work>
  void run(Work&& work) {
    run_erased([](void* w, int thread) { (*static_cast<std::remove_reference_t<Work>*>(w))(thread); }, &work);
  }
  void barrier();

  // Thread `thread`'s even share of [0, n), in units of `unit`.
  Share share(int64_t n, int thread, int64_t unit = 1) const;

 private:
  using Erased = void (*)(void*, int);
  void run_erased(Erased function, void* work);
  void serve(int thread);

  const int threads_;
  Erased function_ = nullptr;
  void* work_ = nullptr;
  bool stopping_ = false;
  alignas(64) std::atomic<uint32_t> round_{0};   // counts run() calls; workers wait for the next
  alignas(64) std::atomic<int> arrived_{0};      // at the current barrier
  alignas(64) std::atomic<uint32_t> passed_{0};  // counts barriers
  std::vector<std::thread> workers_;
};

}  // namespace troupe
