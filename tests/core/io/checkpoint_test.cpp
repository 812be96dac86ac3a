#include "core/io/checkpoint.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <random>

#include "tests/core/io/memory_disk.hpp"
#include "tests/core/io/scratch_folder.hpp"

namespace troupe {
namespace {

CheckpointParts parts_of(uint64_t step, int64_t width = 40) {
  at::manual_seed(step);
  return {
      {"policy", {{"w", at::randn({width, 30})}, {"b", at::randn({7}).to(at::kBFloat16)}}},
      {"optimizer", {{"m", at::randn({width, 30})}, {"step", at::full({}, static_cast<int64_t>(step), at::kLong)}}}};
}

void write(Disk& disk, uint64_t step, const std::string& run = "run", int keep = 3) {
  write_checkpoint(disk, "c", {run, 2, step, step * 1000, "{\"lr\":1}"}, parts_of(step), keep);
}

bool is_step(const LoadedCheckpoint& loaded, uint64_t step) {
  if (loaded.meta.step != step || loaded.meta.journal_offset != step * 1000 || loaded.meta.extra != "{\"lr\":1}")
    return false;
  for (const auto& [part, tensors] : parts_of(step))
    for (const auto& [name, tensor] : tensors)
      if (!at::equal(loaded.parts.at(part).at(name), tensor)) return false;
  return true;
}

std::vector<std::string> names(Disk& disk) {
  std::vector<std::string> out;
  for (const auto& path : list_checkpoints(disk, "c")) out.push_back(path.filename());
  return out;
}

TEST(Checkpoint, GivesBackWhatWasWritten) {
  const ScratchFolder scratch;
  const auto folder = scratch / "checkpoints";
  const auto parts = parts_of(5, 60'000);  // several chunks
  EXPECT_FALSE(load_newest_checkpoint(real_disk(), folder).has_value());
  const auto made = write_checkpoint(real_disk(), folder, {"r", 3, 5, 99, "extra é"}, parts);
  EXPECT_EQ(made, folder / "step-000005");
  const auto loaded = load_newest_checkpoint(real_disk(), folder, "r");
  ASSERT_TRUE(loaded.has_value());
  EXPECT_EQ(loaded->meta.run, "r");
  EXPECT_EQ(loaded->meta.epoch, 3u);
  EXPECT_EQ(loaded->meta.journal_offset, 99u);
  EXPECT_EQ(loaded->meta.extra, "extra é");
  EXPECT_TRUE(loaded->rejected.empty());
  for (const auto& [part, tensors] : parts)
    for (const auto& [name, tensor] : tensors) EXPECT_TRUE(at::equal(loaded->parts.at(part).at(name), tensor));
}

TEST(Checkpoint, KeepsTheNewestThree) {
  MemoryDisk disk;
  for (uint64_t step = 1; step <= 6; ++step) write(disk, step);
  EXPECT_EQ(names(disk), (std::vector<std::string>{"step-000004", "step-000005", "step-000006"}));
  EXPECT_TRUE(is_step(*load_newest_checkpoint(disk, "c"), 6));
}

TEST(Checkpoint, StepsSortByNumberPastAMillion) {
  MemoryDisk disk;
  write(disk, 999'999);
  write(disk, 1'000'000);
  EXPECT_TRUE(is_step(*load_newest_checkpoint(disk, "c"), 1'000'000));
}

TEST(Checkpoint, GoingOnFromAnEarlierStepDropsTheCourseThatWasGivenUp) {
  MemoryDisk disk;
  for (const uint64_t step : {10, 20, 30}) write(disk, step);
  write(disk, 15);
  EXPECT_TRUE(is_step(*load_newest_checkpoint(disk, "c"), 15));
  write(disk, 15);
  EXPECT_EQ(names(disk), (std::vector<std::string>{"step-000010", "step-000015"}));
}

// R13: whatever is flipped or cut in the newest checkpoint is noticed, named, and the previous one is loaded.
TEST(Checkpoint, EveryFlippedBitAndEveryTruncationFallsBackAndNamesTheFile) {
  MemoryDisk disk;
  write(disk, 1);
  write(disk, 2);
  std::mt19937_64 random(1);
  const std::vector<std::string> files = disk.list("c/step-000002");
  ASSERT_EQ(files.size(), 3u);
  for (int i = 0; i < 2000; ++i) {
    const std::string& name = files[random() % files.size()];
    std::string& bytes = disk.bytes("c/step-000002/" + name);
    const std::string before = bytes;
    if (i % 2 == 0)
      bytes[random() % bytes.size()] ^= static_cast<char>(1 << random() % 8);
    else
      bytes.resize(random() % bytes.size());
    const auto loaded = load_newest_checkpoint(disk, "c");
    ASSERT_TRUE(is_step(*loaded, 1));
    ASSERT_EQ(loaded->rejected.size(), 1u);
    EXPECT_NE(loaded->rejected[0].find("c/step-000002/" + name), std::string::npos) << loaded->rejected[0];
    bytes = before;
  }
  EXPECT_TRUE(is_step(*load_newest_checkpoint(disk, "c"), 2));
}

TEST(Checkpoint, NamesTheDamagedChunk) {
  const ScratchFolder scratch;
  write_checkpoint(real_disk(), scratch.path(), {"r", 1, 1, 0, ""}, parts_of(1, 60'000));
  {
    const auto path = scratch / "step-000001/policy.safetensors";
    std::string bytes = read_file(real_disk(), path);
    ASSERT_GT(bytes.size(), 5u << 20);
    bytes[5 << 20] ^= 1;
    write_file(real_disk(), path, bytes);
  }
  try {
    load_checkpoint(real_disk(), scratch / "step-000001");
    FAIL();
  } catch (const std::runtime_error& e) {
    EXPECT_NE(std::string(e.what()).find("policy.safetensors: chunk 1 of 2 is damaged"), std::string::npos) << e.what();
  }
}

TEST(Checkpoint, RefusesSwappedFilesMixedRunsAndAMissingManifest) {
  const auto rejected = [](auto damage, const std::string& run = "") {
    MemoryDisk disk;
    write(disk, 1);
    write(disk, 2);
    damage(disk);
    const auto loaded = load_newest_checkpoint(disk, "c", run);
    return is_step(*loaded, 1) && loaded->rejected.size() == 1;
  };
  const std::filesystem::path two = "c/step-000002";
  EXPECT_TRUE(rejected(
      [&](MemoryDisk& d) { std::swap(d.bytes(two / "policy.safetensors"), d.bytes(two / "optimizer.safetensors")); }));
  EXPECT_TRUE(rejected([&](MemoryDisk& d) { d.remove_all(two / "manifest.json"); }));
  EXPECT_TRUE(rejected([&](MemoryDisk& d) { d.remove_all(two / "policy.safetensors"); }));
  EXPECT_TRUE(rejected(
      [&](MemoryDisk& d) { d.bytes(two / "policy.safetensors") = d.bytes("c/step-000001/policy.safetensors"); }));
  EXPECT_TRUE(
      rejected([&](MemoryDisk& d) { d.bytes(two / "manifest.json") = d.bytes("c/step-000001/manifest.json"); }));
  EXPECT_TRUE(rejected([&](MemoryDisk& d) { write(d, 2, "another"); }, "run"));
}

TEST(Checkpoint, NeverStartsFromScratchWhenNoneIsValid) {
  MemoryDisk disk;
  write(disk, 1);
  write(disk, 2);
  for (const char* step : {"c/step-000001", "c/step-000002"})
    disk.bytes(std::filesystem::path(step) / "policy.safetensors").back() ^= 1;
  try {
    load_newest_checkpoint(disk, "c");
    FAIL();
  } catch (const std::runtime_error& e) {
    const std::string what = e.what();
    EXPECT_NE(what.find("none of its 2 checkpoints"), std::string::npos) << what;
    EXPECT_NE(what.find("c/step-000001/policy.safetensors: chunk 0"), std::string::npos) << what;
  }
}

// R12: an error, and a power failure with it, at every single call of a write: the next load gives the old checkpoint
// or the new one, whole, and the next write succeeds.
TEST(Checkpoint, AnErrorOrCrashAtAnyCallLeavesOldOrNew) {
  std::mt19937_64 random(2);
  for (const bool crash : {false, true}) {
    bool finished = false;
    for (int call = 1; !finished; ++call) {
      ASSERT_LT(call, 200);
      MemoryDisk disk;
      write(disk, 1);
      write(disk, 2, "run", 2);
      disk.fail_at(call, EIO);
      try {
        write(disk, 3, "run", 2);
        finished = true;
      } catch (const DiskError&) {
      }
      if (crash) disk.crash(random);
      disk.fail_at(0, 0);
      const auto loaded = load_newest_checkpoint(disk, "c", "run");
      EXPECT_TRUE(loaded->rejected.empty()) << loaded->rejected[0];
      ASSERT_TRUE(is_step(*loaded, 2) || is_step(*loaded, 3)) << call;
      ASSERT_TRUE(!finished || is_step(*loaded, 3));
      write(disk, 4);
      ASSERT_TRUE(is_step(*load_newest_checkpoint(disk, "c"), 4));
    }
  }
}

TEST(Checkpoint, AFullDiskLeavesTheOldOneAndNothingElse) {
  MemoryDisk disk;
  write(disk, 1);
  uint64_t used = 0;
  for (const std::string& name : disk.list("c/step-000001")) used += disk.bytes("c/step-000001/" + name).size();
  for (uint64_t room = 0; room < used; room += 500) {
    disk.set_capacity(used + room);
    try {
      write(disk, 2);
      FAIL() << "fits into " << room;
    } catch (const DiskError& e) {
      EXPECT_EQ(e.error_number(), ENOSPC);
    }
    EXPECT_EQ(disk.list("c"), std::vector<std::string>{"step-000001"});
    ASSERT_TRUE(is_step(*load_newest_checkpoint(disk, "c"), 1));
  }
  disk.set_capacity(10 * used);
  write(disk, 2);
  EXPECT_TRUE(is_step(*load_newest_checkpoint(disk, "c"), 2));
}

TEST(Checkpoint, TheOldestGoesOnlyWhenTheNewestCanBeRead) {
  // A disk that stores the new policy wrongly.
  class Liar final : public Disk {
   public:
    explicit Liar(MemoryDisk& disk) : disk_(disk) {}
    std::unique_ptr<File> open(const std::filesystem::path& p, OpenMode m) override { return disk_.open(p, m); }
    void rename(const std::filesystem::path& from, const std::filesystem::path& to) override {
      if (from.string().ends_with("step-000003.tmp")) disk_.bytes(from / "policy.safetensors").back() ^= 1;
      disk_.rename(from, to);
    }
    bool exchange(const std::filesystem::path& a, const std::filesystem::path& b) override {
      return disk_.exchange(a, b);
    }
    void remove_all(const std::filesystem::path& p) override { disk_.remove_all(p); }
    bool exists(const std::filesystem::path& p) override { return disk_.exists(p); }
    std::vector<std::string> list(const std::filesystem::path& p) override { return disk_.list(p); }
    void create_dirs(const std::filesystem::path& p) override { disk_.create_dirs(p); }
    void sync_dir(const std::filesystem::path& p) override { disk_.sync_dir(p); }

   private:
    MemoryDisk& disk_;
  };
  MemoryDisk disk;
  write(disk, 1, "run", 2);
  write(disk, 2, "run", 2);
  Liar liar(disk);
  EXPECT_THROW(write(liar, 3, "run", 2), std::runtime_error);
  EXPECT_EQ(names(disk), (std::vector<std::string>{"step-000001", "step-000002", "step-000003"}));
  EXPECT_TRUE(is_step(*load_newest_checkpoint(disk, "c"), 2));
}

TEST(Checkpoint, RefusesPartNamesThatAreNoFileNames) {
  MemoryDisk disk;
  for (const char* name : {"", "../x", "a/b", "A", "manifest.json"})
    EXPECT_THROW(write_checkpoint(disk, "c", {}, {{name, {}}}), std::invalid_argument);
  EXPECT_TRUE(disk.list("c").empty());
}

}  // namespace
}  // namespace troupe
