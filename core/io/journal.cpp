#include "core/io/journal.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <cstring>

#include "core/io/crc32c.hpp"

namespace troupe {
namespace {

constexpr std::size_t kHeaderBytes = 9;
constexpr std::size_t kNameDigits = 20;

struct Segment {
  std::filesystem::path path;
  uint64_t begin;
};

std::filesystem::path segment_path(const std::filesystem::path& folder, uint64_t begin) {
  char name[kNameDigits + 5];
  std::snprintf(name, sizeof name, "%020llu.log", static_cast<unsigned long long>(begin));
  return folder / name;
}

std::vector<Segment> segments_of(Disk& disk, const std::filesystem::path& folder) {
  std::vector<Segment> segments;
  if (!disk.exists(folder)) return segments;
  for (const std::string& name : disk.list(folder)) {
    uint64_t begin = 0;
    const auto parsed = std::from_chars(name.data(), name.data() + std::min(name.size(), kNameDigits), begin);
    if (parsed.ec != std::errc() || name != segment_path("", begin).string()) continue;
    segments.push_back({folder / name, begin});
  }
  return segments;
}

uint32_t load32(const std::byte* p) {
  uint32_t value;
  std::memcpy(&value, p, 4);
  return value;
}

uint32_t frame_crc(const std::byte* frame, uint32_t length) {
  const uint32_t crc = crc32c({frame, 4});
  return crc32c({frame + 8, 1 + std::size_t{length}}, crc);
}

bool frame_fits(std::span<const std::byte> rest) {
  return rest.size() >= kHeaderBytes && load32(rest.data()) <= kMaxRecordBytes &&
         load32(rest.data()) <= rest.size() - kHeaderBytes;
}

bool frame_is_good(std::span<const std::byte> rest) {
  return frame_fits(rest) && frame_crc(rest.data(), load32(rest.data())) == load32(rest.data() + 4);
}

// Whether a row of whole frames that ends exactly at the end begins anywhere behind the first byte: then what does not
// check at the front is damage and no torn tail. Only such a row's first frame pays for a CRC; short frames are checked
// on the way, so that runs of zeros (frames of length 0, by their look) do not make this quadratic.
bool good_frames_follow(std::span<const std::byte> bytes) {
  constexpr uint32_t kCheapBytes = 64;
  for (std::size_t start = 1; start + kHeaderBytes <= bytes.size(); ++start) {
    std::size_t at = start;
    while (at < bytes.size() && frame_fits(bytes.subspan(at))) {
      const uint32_t length = load32(bytes.data() + at);
      if (length <= kCheapBytes && !frame_is_good(bytes.subspan(at))) break;
      at += kHeaderBytes + length;
    }
    if (at == bytes.size() && frame_is_good(bytes.subspan(start))) return true;
  }
  return false;
}

std::vector<std::byte> read_segment(Disk& disk, const Segment& segment) {
  const auto file = disk.open(segment.path, OpenMode::kRead);
  std::vector<std::byte> bytes(file->size());
  bytes.resize(file->read_at(0, bytes));
  return bytes;
}

std::runtime_error damage(const Segment& segment, uint64_t offset, const std::string& reason) {
  return std::runtime_error("journal segment " + segment.path.string() + " is damaged at offset " +
                            std::to_string(offset) + ": " + reason);
}

// Walks a segment's frames from its start; returns where they end (within the segment) and visits those at or behind
// `from`.
std::size_t walk(const Segment& segment, std::span<const std::byte> bytes, uint64_t from, const RecordVisitor& visit) {
  std::size_t at = 0;
  bool met = from <= segment.begin;
  while (frame_is_good(bytes.subspan(at))) {
    const uint32_t length = load32(bytes.data() + at);
    met = met || segment.begin + at == from;
    if (met && visit)
      visit(segment.begin + at, static_cast<uint8_t>(bytes[at + 8]), bytes.subspan(at + kHeaderBytes, length));
    at += kHeaderBytes + length;
  }
  if (!met && segment.begin + at > from)
    throw std::runtime_error("journal segment " + segment.path.string() + ": offset " + std::to_string(from) +
                             " is not the start of a record");
  return at;
}

void check_gap(const std::vector<Segment>& segments, std::size_t i, uint64_t end) {
  if (i + 1 < segments.size() && end != segments[i + 1].begin)
    throw damage(segments[i], end, "it ends here, the next segment begins at " + std::to_string(segments[i + 1].begin));
}

// Reads the last segment's tail: what does not check there is torn, unless good frames lie behind it.
JournalEnd end_of(const Segment& segment, std::span<const std::byte> bytes, std::size_t good) {
  if (good < bytes.size() && good_frames_follow(bytes.subspan(good)))
    throw damage(segment, segment.begin + good, "this record does not check, and whole records follow it");
  return {segment.begin + good, bytes.size() - good};
}

}  // namespace

JournalEnd read_journal(Disk& disk, const std::filesystem::path& folder, uint64_t from_offset,
                        const RecordVisitor& visit) {
  const std::vector<Segment> segments = segments_of(disk, folder);
  JournalEnd end;
  if (!segments.empty() && from_offset < segments.front().begin)
    throw std::runtime_error("journal " + folder.string() + ": offset " + std::to_string(from_offset) +
                             " lies in a removed segment; the oldest record kept is at " +
                             std::to_string(segments.front().begin));
  for (std::size_t i = 0; i < segments.size(); ++i) {
    const Segment& segment = segments[i];
    const bool last = i + 1 == segments.size();
    if (!last && segments[i + 1].begin <= from_offset) continue;
    const std::vector<std::byte> bytes = read_segment(disk, segment);
    const std::size_t good = walk(segment, bytes, from_offset, visit);
    if (last)
      end = end_of(segment, bytes, good);
    else
      check_gap(segments, i, segment.begin + good);
  }
  if (from_offset > end.offset)
    throw std::runtime_error("journal " + folder.string() + " ends at offset " + std::to_string(end.offset) +
                             ", before " + std::to_string(from_offset));
  return end;
}

JournalRecord read_record(Disk& disk, const std::filesystem::path& folder, uint64_t offset) {
  const std::vector<Segment> segments = segments_of(disk, folder);
  const auto behind = std::ranges::find_if(segments, [&](const Segment& s) { return s.begin > offset; });
  if (behind == segments.begin())
    throw std::runtime_error("journal " + folder.string() + ": no segment holds offset " + std::to_string(offset));
  const Segment& segment = *std::prev(behind);
  const auto file = disk.open(segment.path, OpenMode::kRead);
  const uint64_t at = offset - segment.begin;
  std::vector<std::byte> frame(kHeaderBytes);
  const auto read_rest = [&](std::size_t from) {
    if (file->read_at(at + from, std::span(frame).subspan(from)) < frame.size() - from)
      throw damage(segment, offset, "the file ends within this record");
  };
  read_rest(0);
  const uint32_t length = load32(frame.data());
  if (length > kMaxRecordBytes)
    throw damage(segment, offset,
                 "a record of " + std::to_string(length) + " bytes; the limit is " + std::to_string(kMaxRecordBytes));
  frame.resize(kHeaderBytes + length);
  read_rest(kHeaderBytes);
  if (!frame_is_good(frame)) throw damage(segment, offset, "this record does not check");
  return {static_cast<uint8_t>(frame[8]), {frame.begin() + kHeaderBytes, frame.end()}};
}

Journal::Journal(Disk& disk, std::filesystem::path folder, JournalOptions options)
    : disk_(disk), folder_(std::move(folder)), options_(options) {
  disk_.create_dirs(folder_);
  const std::vector<Segment> segments = segments_of(disk_, folder_);
  if (segments.empty()) {
    if (options_.must_reach > 0)
      throw std::runtime_error("journal " + folder_.string() + " is empty, but records up to offset " +
                               std::to_string(options_.must_reach) + " were durable");
    begin_segment();
    return;
  }
  // Earlier segments are whole by their sizes; their records are checked by whoever reads them.
  for (std::size_t i = 0; i + 1 < segments.size(); ++i)
    check_gap(segments, i, segments[i].begin + disk_.open(segments[i].path, OpenMode::kRead)->size());
  const JournalEnd end = read_journal(disk_, folder_, segments.back().begin, {});
  if (end.offset < options_.must_reach)
    throw damage(segments.back(), end.offset,
                 "the journal ends here, but records up to " + std::to_string(options_.must_reach) + " were durable");
  segment_begin_ = segments.back().begin;
  file_ = disk_.open(segments.back().path, OpenMode::kAppend);
  if (end.torn_bytes > 0) {
    torn_ = end;
    file_->truncate(end.offset - segment_begin_);
  }
  file_->sync();  // what was read may have been in memory only
  disk_.sync_dir(folder_);
  end_ = synced_ = end.offset;
}

void Journal::begin_segment() {
  auto file = disk_.open(segment_path(folder_, end_), OpenMode::kCreate);
  disk_.sync_dir(folder_);
  file_ = std::move(file);
  segment_begin_ = end_;
}

uint64_t Journal::append(uint8_t type, std::span<const std::byte> payload) {
  if (dead_) throw std::runtime_error("journal " + folder_.string() + ": an earlier write failed");
  if (payload.size() > kMaxRecordBytes)
    throw std::invalid_argument("journal " + folder_.string() + ": a record of " + std::to_string(payload.size()) +
                                " bytes; the limit is " + std::to_string(kMaxRecordBytes));
  const uint64_t frame_bytes = kHeaderBytes + payload.size();
  if (end_ > segment_begin_ && end_ - segment_begin_ + frame_bytes > options_.segment_bytes) {
    sync();
    begin_segment();
  }
  std::vector<std::byte> frame(frame_bytes);
  const auto length = static_cast<uint32_t>(payload.size());
  std::memcpy(frame.data(), &length, 4);
  frame[8] = static_cast<std::byte>(type);
  std::copy(payload.begin(), payload.end(), frame.begin() + kHeaderBytes);
  const uint32_t crc = frame_crc(frame.data(), length);
  std::memcpy(frame.data() + 4, &crc, 4);

  dead_ = true;
  try {
    file_->append(frame);
  } catch (const DiskError&) {
    file_->truncate(end_ - segment_begin_);  // throws in its turn: then the journal stays dead
    dead_ = false;
    throw;
  }
  dead_ = false;
  const uint64_t offset = end_;
  end_ += frame_bytes;
  return offset;
}

void Journal::sync() {
  if (dead_) throw std::runtime_error("journal " + folder_.string() + ": an earlier write failed");
  if (synced_ == end_) return;
  dead_ = true;
  file_->sync();
  dead_ = false;
  synced_ = end_;
}

void Journal::remove_before(uint64_t offset) {
  const std::vector<Segment> segments = segments_of(disk_, folder_);
  for (std::size_t i = 0; i + 1 < segments.size() && segments[i + 1].begin <= offset; ++i)
    disk_.remove_all(segments[i].path);
  disk_.sync_dir(folder_);
}

}  // namespace troupe
