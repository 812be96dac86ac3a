// The append-only record log of a run. Records are opaque bytes with a type; a record's offset counts the bytes of the
// whole log before it, so it stays the same when old segments are removed.
//
// On disk: FOLDER/00000000000000000000.log and so on, each named by the offset of its first byte. A frame:
//   u32 length of payload | u32 crc32c(length, type, payload) | u8 type | payload       (little-endian)
// A segment is synced before the next one is made, so only the last can have a torn tail.
//
// What a crash leaves: frames cut short or never written at the end of the last segment. Opening for writing cuts them
// off and says so. Anything else that does not check (a bad frame with good ones behind it, in an earlier segment, a
// missing segment) is damage: std::runtime_error naming segment and offset, and nothing is changed.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "core/io/disk.hpp"

namespace troupe {

struct JournalOptions {
  uint64_t segment_bytes = 64u << 20;  // a new segment is begun rather than growing past this
  // Records below this offset are known to have been durable (a checkpoint points behind them): a journal that ends
  // earlier is damaged, not torn.
  uint64_t must_reach = 0;
};

inline constexpr uint64_t kMaxRecordBytes = 1u << 30;

struct JournalEnd {
  uint64_t offset = 0;      // end of the last whole record
  uint64_t torn_bytes = 0;  // what lies behind it and is no whole record
};

// One writer, one thread. Not copied, not shared.
class Journal {
 public:
  // Opens or begins the journal in `folder` (created if missing).
  Journal(Disk& disk, std::filesystem::path folder, JournalOptions options = {});

  // Adds a record; returns its offset. Not durable before sync(). Where the disk is full the journal is as before and
  // the append can be tried again; after any other failure every call throws.
  uint64_t append(uint8_t type, std::span<const std::byte> payload);
  // One fdatasync for everything appended since the last: group commit.
  void sync();

  uint64_t end_offset() const { return end_; }        // where the next record goes
  uint64_t synced_offset() const { return synced_; }  // below it everything is durable
  // What was cut off when the journal was opened.
  const std::optional<JournalEnd>& torn_tail() const { return torn_; }

  // Removes segments that end at or before `offset`; the last one stays.
  void remove_before(uint64_t offset);

 private:
  void begin_segment();

  Disk& disk_;
  const std::filesystem::path folder_;
  const JournalOptions options_;
  std::unique_ptr<File> file_;
  uint64_t segment_begin_ = 0;
  uint64_t end_ = 0;
  uint64_t synced_ = 0;
  bool dead_ = false;
  std::optional<JournalEnd> torn_;
};

// Visits the records from `from_offset` (a record's offset or the end) on; `payload` is valid during the call. May run
// beside a writer: a tail that is no whole record yet ends the reading. Damage throws, as does an offset that is no
// record's or lies in a removed segment. A missing folder is an empty journal.
using RecordVisitor = std::function<void(uint64_t offset, uint8_t type, std::span<const std::byte> payload)>;
JournalEnd read_journal(Disk& disk, const std::filesystem::path& folder, uint64_t from_offset,
                        const RecordVisitor& visit);

struct JournalRecord {
  uint8_t type;
  std::vector<std::byte> payload;
};
// The record at `offset`, and no byte of any other. Throws std::runtime_error naming segment and offset when it is
// damaged, lies in a removed segment or behind the end.
JournalRecord read_record(Disk& disk, const std::filesystem::path& folder, uint64_t offset);

}  // namespace troupe
