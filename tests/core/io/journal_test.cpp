#include "core/io/journal.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <random>

#include "tests/core/io/memory_disk.hpp"
#include "tests/core/io/scratch_folder.hpp"

namespace troupe {
namespace {

struct Record {
  uint64_t offset;
  uint8_t type;
  std::string payload;
  friend bool operator==(const Record&, const Record&) = default;
};

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::vector<Record> records(Disk& disk, const std::filesystem::path& folder, uint64_t from = 0,
                            JournalEnd* end = nullptr) {
  std::vector<Record> out;
  const JournalEnd e = read_journal(disk, folder, from, [&](uint64_t offset, uint8_t type, auto payload) {
    out.push_back({offset, type, std::string(reinterpret_cast<const char*>(payload.data()), payload.size())});
  });
  if (end) *end = e;
  return out;
}

std::string random_payload(std::mt19937_64& random, std::size_t limit) {
  std::string payload(random() % limit, '\0');
  const auto kind = random() % 3;  // zeros, small integers, anything: what length fields may be mistaken for
  for (char& c : payload) c = kind == 0 ? '\0' : static_cast<char>(kind == 1 ? random() % 4 : random());
  return payload;
}

// A journal of about `count` records in several segments, all synced.
std::vector<Record> fill(Disk& disk, const std::filesystem::path& folder, int count, uint64_t seed = 1) {
  std::mt19937_64 random(seed);
  Journal journal(disk, folder, {.segment_bytes = 2000});
  std::vector<Record> written;
  for (int i = 0; i < count; ++i) {
    const std::string payload = random_payload(random, 300);
    const auto type = static_cast<uint8_t>(random() % 5);
    written.push_back({journal.append(type, bytes_of(payload)), type, payload});
  }
  journal.sync();
  return written;
}

TEST(Journal, ReadsOneRecordByItsOffset) {
  const ScratchFolder scratch;
  const auto folder = scratch / "j";
  const auto written = fill(real_disk(), folder, 60);
  const auto read = [&](uint64_t offset) {
    const JournalRecord record = read_record(real_disk(), folder, offset);
    return Record{offset, record.type,
                  std::string(reinterpret_cast<const char*>(record.payload.data()), record.payload.size())};
  };
  for (const Record& record : written) EXPECT_EQ(read(record.offset), record);
  JournalEnd end;
  records(real_disk(), folder, 0, &end);
  EXPECT_THROW(read(end.offset), std::runtime_error);
  EXPECT_THROW(read(end.offset + 1'000'000), std::runtime_error);
  EXPECT_THROW(read(written[5].offset + 1), std::runtime_error);
  EXPECT_THROW(read_record(real_disk(), scratch / "absent", 0), std::runtime_error);

  // Damage matters to the record that has it, and to no other.
  const auto first = folder / real_disk().list(folder).front();
  std::string bytes = read_file(real_disk(), first);
  const std::size_t begin = written[1].offset, behind = written[2].offset;
  for (std::size_t at = begin; at < behind; ++at) {
    bytes[at] ^= 0x10;
    std::ofstream(first, std::ios::binary) << bytes;
    EXPECT_THROW(read(written[1].offset), std::runtime_error) << "byte " << at - begin;
    EXPECT_EQ(read(written[0].offset), written[0]);
    EXPECT_EQ(read(written[2].offset), written[2]);
    bytes[at] ^= 0x10;
  }
  std::ofstream(first, std::ios::binary) << bytes.substr(0, behind - 1);
  EXPECT_THROW(read(written[1].offset), std::runtime_error);
}

TEST(Journal, GivesBackWhatWasAppendedAcrossSegments) {
  const ScratchFolder scratch;
  const auto written = fill(real_disk(), scratch / "j", 60);
  EXPECT_GT(real_disk().list(scratch / "j").size(), 3u);
  EXPECT_EQ(records(real_disk(), scratch / "j"), written);
  const auto tail = records(real_disk(), scratch / "j", written[41].offset);
  EXPECT_EQ(tail, std::vector<Record>(written.begin() + 41, written.end()));
}

TEST(Journal, GoesOnWhereItEnded) {
  MemoryDisk disk;
  auto written = fill(disk, "j", 10);
  uint64_t end = 0;
  {
    Journal journal(disk, "j", {.segment_bytes = 2000});
    EXPECT_FALSE(journal.torn_tail().has_value());
    EXPECT_EQ(journal.synced_offset(), journal.end_offset());
    written.push_back({journal.append(9, bytes_of("more")), 9, "more"});
    EXPECT_LT(journal.synced_offset(), journal.end_offset());
    journal.sync();
    end = journal.end_offset();
  }
  EXPECT_EQ(records(disk, "j"), written);
  EXPECT_TRUE(records(disk, "j", end).empty());
  EXPECT_THROW(records(disk, "j", end + 1), std::runtime_error);
  EXPECT_THROW(records(disk, "j", written[3].offset + 1), std::runtime_error);
}

TEST(Journal, IsEmptyWhereThereIsNone) {
  MemoryDisk disk;
  EXPECT_TRUE(records(disk, "nowhere").empty());
  EXPECT_THROW(Journal(disk, "nowhere", {.must_reach = 1}), std::runtime_error);
}

TEST(Journal, HoldsARecordLargerThanASegment) {
  MemoryDisk disk;
  Journal journal(disk, "j", {.segment_bytes = 100});
  const std::string big(1000, 'x');
  journal.append(1, bytes_of("small"));
  journal.append(1, bytes_of(big));
  journal.append(1, bytes_of("small"));
  journal.sync();
  EXPECT_EQ(records(disk, "j").at(1).payload, big);
  EXPECT_EQ(disk.list("j").size(), 3u);
}

TEST(Journal, CutsATornTailOfEveryLengthAndSaysSo) {
  MemoryDisk whole;
  const auto written = fill(whole, "j", 12);
  const std::string last = "j/" + whole.list("j").back();
  const std::string bytes = whole.bytes(last);
  const uint64_t begin = std::stoull(whole.list("j").back());
  for (std::size_t cut = 0; cut <= bytes.size(); ++cut) {
    MemoryDisk disk;
    fill(disk, "j", 12);
    disk.bytes(last) = bytes.substr(0, cut);
    std::vector<Record> kept;
    for (const Record& r : written)
      if (r.offset + 9 + r.payload.size() <= begin + cut) kept.push_back(r);
    const uint64_t good = kept.empty() ? 0 : kept.back().offset + 9 + kept.back().payload.size();
    JournalEnd end;
    EXPECT_EQ(records(disk, "j", 0, &end), kept);
    EXPECT_EQ(end.offset, good);
    EXPECT_EQ(end.torn_bytes, begin + cut - good);
    Journal journal(disk, "j", {.segment_bytes = 2000});
    EXPECT_EQ(journal.end_offset(), good);
    EXPECT_EQ(journal.torn_tail().has_value(), begin + cut > good);
    kept.push_back({journal.append(7, bytes_of("after")), 7, "after"});
    journal.sync();
    EXPECT_EQ(records(disk, "j"), kept);
  }
}

// A flipped bit is damage everywhere but in the last record, which looks like a torn write: then it is cut, reported,
// and refused where it is known to have been durable.
TEST(Journal, NoticesEveryFlippedBit) {
  std::mt19937_64 random(3);
  int damaged = 0, cut = 0;
  for (int round = 0; round < 1500; ++round) {
    MemoryDisk disk;
    const auto written = fill(disk, "j", 25, 1 + round % 5);
    const auto names = disk.list("j");
    std::string& bytes = disk.bytes("j/" + names[random() % names.size()]);
    if (bytes.empty()) continue;
    const std::size_t at = random() % bytes.size();
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << random() % 8));
    try {
      const auto read = records(disk, "j");
      ASSERT_EQ(read.size() + 1, written.size());
      ASSERT_EQ(read, std::vector<Record>(written.begin(), written.end() - 1));
      Journal journal(disk, "j", {.segment_bytes = 2000});
      ASSERT_TRUE(journal.torn_tail().has_value());
      ++cut;
    } catch (const std::runtime_error& e) {
      EXPECT_NE(std::string(e.what()).find("damaged at offset"), std::string::npos) << e.what();
      ++damaged;
    }
  }
  EXPECT_GT(damaged, 1200);
  EXPECT_GT(cut, 5);
}

TEST(Journal, RefusesToEndBeforeWhatWasDurable) {
  MemoryDisk disk;
  const auto written = fill(disk, "j", 12);
  const std::string last = "j/" + disk.list("j").back();
  const uint64_t end = written.back().offset + 9 + written.back().payload.size();
  EXPECT_NO_THROW(Journal(disk, "j", {.must_reach = end}));
  disk.bytes(last).pop_back();
  const std::string before = disk.bytes(last);
  EXPECT_THROW(Journal(disk, "j", {.must_reach = end}), std::runtime_error);
  EXPECT_EQ(disk.bytes(last), before);
}

TEST(Journal, NoticesAMissingSegmentAndAShortenedOne) {
  for (const bool remove : {true, false}) {
    MemoryDisk disk;
    fill(disk, "j", 40);
    const std::string name = "j/" + disk.list("j")[1];
    if (remove)
      disk.remove_all(name);
    else
      disk.bytes(name).resize(disk.bytes(name).size() / 2);
    EXPECT_THROW(records(disk, "j"), std::runtime_error);
    EXPECT_THROW(Journal(disk, "j", {}), std::runtime_error);
  }
}

TEST(Journal, FindsGoodRecordsBehindZeros) {
  MemoryDisk disk;
  fill(disk, "j", 1);
  {
    Journal journal(disk, "j", {});
    journal.append(1, bytes_of(std::string(3'000'000, '\0')));
    journal.append(1, bytes_of(std::string(1'000'000, '\1')));
    journal.append(1, bytes_of("end"));
    journal.sync();
  }
  std::string& bytes = disk.bytes("j/" + disk.list("j").back());
  bytes[2000] ^= 1;
  EXPECT_THROW(records(disk, "j"), std::runtime_error);
}

TEST(Journal, EverySyncedRecordSurvivesACrashAtEveryCall) {
  std::mt19937_64 random(4);
  for (int call = 1; call < 400; ++call) {
    MemoryDisk disk;
    std::vector<Record> acked, appended;
    disk.fail_at(call, EIO);
    try {
      Journal journal(disk, "j", {.segment_bytes = 500});
      for (int i = 0; i < 40; ++i) {
        const std::string payload = random_payload(random, 100);
        appended.push_back({journal.append(1, bytes_of(payload)), 1, payload});
        if (random() % 3 == 0) {
          journal.sync();
          acked = appended;
        }
      }
    } catch (const DiskError&) {
    }
    disk.crash(random);
    Journal journal(disk, "j",
                    {.must_reach = acked.empty() ? 0 : acked.back().offset + 9 + acked.back().payload.size()});
    const auto read = records(disk, "j");
    ASSERT_GE(read.size(), acked.size());
    ASSERT_LE(read.size(), appended.size());
    ASSERT_EQ(read, std::vector<Record>(appended.begin(), appended.begin() + static_cast<long>(read.size())));
  }
}

TEST(Journal, GoesOnWhenAFullDiskHasRoomAgain) {
  MemoryDisk disk;
  Journal journal(disk, "j", {});
  journal.append(1, bytes_of("first"));
  disk.set_capacity(30);
  EXPECT_THROW(journal.append(1, bytes_of(std::string(100, 'x'))), DiskError);
  disk.set_capacity(1000);
  journal.append(1, bytes_of("second"));
  journal.sync();
  const auto read = records(disk, "j");
  ASSERT_EQ(read.size(), 2u);
  EXPECT_EQ(read[1].payload, "second");
}

TEST(Journal, IsDeadAfterAFailedSync) {
  MemoryDisk disk;
  Journal journal(disk, "j", {});
  journal.append(1, bytes_of("first"));
  disk.fail_at(1, EIO);
  EXPECT_THROW(journal.sync(), DiskError);
  EXPECT_THROW(journal.sync(), std::runtime_error);
  EXPECT_THROW(journal.append(1, bytes_of("second")), std::runtime_error);
}

TEST(Journal, RemovesOldSegmentsAndKeepsOffsets) {
  MemoryDisk disk;
  const auto written = fill(disk, "j", 40);
  Journal journal(disk, "j", {.segment_bytes = 2000});
  journal.remove_before(written[25].offset);
  EXPECT_EQ(records(disk, "j", written[25].offset), std::vector<Record>(written.begin() + 25, written.end()));
  EXPECT_THROW(records(disk, "j", 0), std::runtime_error);
  EXPECT_NO_THROW(Journal(disk, "j", {}));
}

}  // namespace
}  // namespace troupe
