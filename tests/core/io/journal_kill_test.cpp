// A journal's writer killed again and again, its unsynced tail torn: what was acknowledged is read back, once and in
// order. Real processes on a real disk.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <random>
#include <thread>

#include "core/io/journal.hpp"
#include "tests/core/io/scratch_folder.hpp"

namespace troupe {
namespace {

constexpr uint64_t kSamples = 30'000;
constexpr uint64_t kMostOfALife = 250;
constexpr JournalOptions kOptions{.segment_bytes = 64 << 10};

// Sample ids are 1, 2, 3 ...; a record is its id and some bytes that follow from it.
std::vector<std::byte> record_of(uint64_t id) {
  std::vector<std::byte> out(8 + id % 97, static_cast<std::byte>(id));
  std::memcpy(out.data(), &id, 8);
  return out;
}

// How many ids the journal holds; they must be 1 to that, each whole.
uint64_t count_ids(const std::filesystem::path& folder) {
  uint64_t last = 0;
  read_journal(real_disk(), folder, 0, [&](uint64_t, uint8_t, std::span<const std::byte> payload) {
    ++last;
    const auto expected = record_of(last);
    if (!std::equal(payload.begin(), payload.end(), expected.begin(), expected.end()))
      throw std::runtime_error("record " + std::to_string(last) + " is another");
  });
  return last;
}

// Goes on where the journal ends, a few records a sync, and tells the pipe what is durable. Until killed, or the end; a
// life does kMostOfALife samples and waits for its death, so that there are many.
[[noreturn]] void write_on(const std::filesystem::path& folder, int acknowledged, uint64_t seed) {
  Journal journal(real_disk(), folder, kOptions);
  std::mt19937_64 random(seed);
  const uint64_t last = std::min(kSamples, count_ids(folder) + kMostOfALife);
  for (uint64_t id = count_ids(folder); id < last;) {
    for (uint64_t batch = 1 + random() % 20; batch > 0 && id < last; --batch) journal.append(1, record_of(++id));
    journal.sync();
    if (write(acknowledged, &id, sizeof id) != sizeof id) _exit(2);
  }
  if (last < kSamples) pause();
  _exit(0);
}

// The last id that the writer said was durable, before it was killed `life` after its first word.
uint64_t let_live(const std::filesystem::path& folder, std::chrono::microseconds life, uint64_t seed, bool& ended) {
  int ends[2];
  if (pipe(ends) != 0) throw std::runtime_error("no pipe");
  const pid_t child = fork();
  if (child == 0) {
    close(ends[0]);
    write_on(folder, ends[1], seed);
  }
  close(ends[1]);
  uint64_t last = 0;
  [[maybe_unused]] const auto first = read(ends[0], &last, sizeof last);
  std::this_thread::sleep_for(life);
  kill(child, SIGKILL);
  int status = 0;
  waitpid(child, &status, 0);
  ended = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  for (uint64_t id = 0; read(ends[0], &id, sizeof id) == sizeof id;) last = id;
  close(ends[0]);
  return last;
}

// What a power cut does to bytes that were not synced: some of the last segment's end is not there, or is nonsense.
void tear(const std::filesystem::path& folder, uint64_t durable_bytes, std::mt19937_64& random) {
  const auto names = real_disk().list(folder);
  const std::filesystem::path last = folder / names.back();
  const auto file = real_disk().open(last, OpenMode::kAppend);
  const uint64_t begin = std::stoull(last.stem().string());
  if (begin + file->size() > durable_bytes && durable_bytes >= begin)
    file->truncate(durable_bytes - begin + random() % (begin + file->size() - durable_bytes));
  std::vector<std::byte> nonsense(random() % 40);
  for (std::byte& b : nonsense) b = static_cast<std::byte>(random());
  file->append(nonsense);
}

uint64_t bytes_of_ids(const std::filesystem::path& folder, uint64_t ids) {
  uint64_t seen = 0, end = 0;
  read_journal(real_disk(), folder, 0, [&](uint64_t offset, uint8_t, std::span<const std::byte> payload) {
    if (++seen == ids) end = offset + 9 + payload.size();
  });
  return end;
}

TEST(Journal, LosesAndDoublesNothingThatWasAcknowledgedOverKillsAndTornTails) {
  const ScratchFolder scratch;
  const auto folder = scratch / "journal";
  std::mt19937_64 random(4);
  int kills = 0, torn = 0;
  uint64_t durable = 0;
  for (bool ended = false; !ended; ++kills) {
    ASSERT_LT(kills, 5000) << "no progress: " << durable;
    durable = std::max(durable, let_live(folder, std::chrono::microseconds(random() % 1500), random(), ended));
    if (!real_disk().exists(folder) || real_disk().list(folder).empty()) continue;
    const uint64_t held = count_ids(folder);
    ASSERT_GE(held, durable) << "acknowledged records are gone after kill " << kills;
    if (!ended && random() % 3 == 0) {
      tear(folder, bytes_of_ids(folder, durable), random);
      ++torn;
      ASSERT_GE(count_ids(folder), durable) << "kill " << kills;
    }
  }
  EXPECT_EQ(count_ids(folder), kSamples);
  RecordProperty("kills", kills);
  RecordProperty("torn", torn);
  std::printf("%d kills, %d torn tails\n", kills, torn);
  EXPECT_GE(kills, 100);
  EXPECT_GE(torn, 20);
}

}  // namespace
}  // namespace troupe
