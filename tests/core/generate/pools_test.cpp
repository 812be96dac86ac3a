#include <gtest/gtest.h>

#include <atomic>

#include "core/generate/page_pool.hpp"
#include "core/generate/worker_pool.hpp"

namespace troupe {
namespace {

TEST(WorkerPool, APhaseIsOverWhenAllItsItemsAreDoneOnce) {
  for (int threads : {1, 2, 5}) {
    WorkerPool pool(threads);
    for (int round = 0; round < 10; ++round) {
      constexpr int64_t kPhases = 8, kItems = 37;
      std::vector<std::vector<int>> times(kPhases, std::vector<int>(kItems, 0));
      std::atomic<int> wrong{0};
      pool.run(kPhases, round % 3 == 0, [&](int) {
        for (int64_t phase = 0; phase < kPhases; ++phase) {
          pool.phase(phase, kItems, 1 + phase, [&](int64_t first, int64_t last) {
            if (phase > 0)
              for (int count : times[static_cast<size_t>(phase - 1)]) wrong += count != 1;
            for (int64_t i = first; i < last; ++i) ++times[static_cast<size_t>(phase)][static_cast<size_t>(i)];
          });
        }
      });
      for (int count : times.back()) wrong += count != 1;
      EXPECT_EQ(wrong, 0) << threads << " threads";
    }
  }
}

TEST(WorkerPool, EmptyPhasesEnd) {
  WorkerPool pool(2);
  pool.run(2, false, [&](int) {
    pool.phase(0, 0, 4, [](int64_t, int64_t) { FAIL(); });
    pool.phase(1, 0, 1, [](int64_t, int64_t) { FAIL(); });
  });
}

TEST(PagePool, FreesAPageWithItsLastHolder) {
  PagePool pool(4);
  const std::vector<int32_t> pages = pool.take(3);
  pool.hold(pages[0]);
  pool.release(pages[0]);
  EXPECT_EQ(pool.num_free(), 1);
  pool.release(pages[0]);
  EXPECT_EQ(pool.num_free(), 2);
  EXPECT_THROW(pool.take(3), std::logic_error);
  EXPECT_THROW(pool.release(pages[0]), std::logic_error);
}

}  // namespace
}  // namespace troupe
