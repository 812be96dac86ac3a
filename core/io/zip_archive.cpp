// The format: PKWARE's APPNOTE.TXT 6.3, sections 4.3 to 4.5.
#include "core/io/zip_archive.hpp"

#include <algorithm>
#include <span>
#include <stdexcept>

#include "core/io/crc32.hpp"

namespace troupe {
namespace {

constexpr uint32_t kLocalHeader = 0x04034b50, kDirectoryHeader = 0x02014b50, kEnd = 0x06054b50, kEnd64 = 0x06064b50,
                   kEnd64Locator = 0x07064b50;
constexpr std::size_t kLocalBytes = 30, kDirectoryBytes = 46, kEndBytes = 22, kEnd64Bytes = 56, kLocatorBytes = 20;
constexpr uint64_t kIn64 = 0xFFFFFFFF;          // a 32-bit field whose value stands in the zip64 extra
constexpr uint64_t kMaxDirectory = 256u << 20;  // bytes
constexpr uint64_t kMaxEntries = 1u << 20;
constexpr uint64_t kAlignment = 64;

// Little-endian numbers out of bytes; reading past the end throws.
class Fields {
 public:
  Fields(std::string_view bytes, const std::string& what) : bytes_(bytes), what_(what) {}

  uint64_t number(std::size_t size) {
    const std::string_view raw = text(size);
    uint64_t value = 0;
    for (std::size_t i = size; i > 0; --i) value = value << 8 | static_cast<uint8_t>(raw[i - 1]);
    return value;
  }
  std::string_view text(std::size_t size) {
    if (size > bytes_.size() - at_) throw std::runtime_error(what_ + " is cut short");
    at_ += size;
    return bytes_.substr(at_ - size, size);
  }
  bool empty() const { return at_ == bytes_.size(); }

 private:
  std::string_view bytes_;
  std::string what_;
  std::size_t at_ = 0;
};

std::string read_bytes(const File& file, uint64_t offset, uint64_t size) {
  if (offset > file.size() || size > file.size() - offset)
    throw std::runtime_error("bytes " + std::to_string(offset) + " to " + std::to_string(offset) + " + " +
                             std::to_string(size) + " lie outside the file of " + std::to_string(file.size()));
  std::string bytes(size, '\0');
  if (file.read_at(offset, std::as_writable_bytes(std::span(bytes.data(), bytes.size()))) != size)
    throw std::runtime_error("cut short while it was read");
  return bytes;
}

struct DirectoryPlace {
  uint64_t count = 0, bytes = 0, offset = 0;
};

DirectoryPlace place_of_zip64(const File& file, uint64_t end_offset) {
  if (end_offset < kLocatorBytes) throw std::runtime_error("the zip64 locator is missing");
  const std::string locator_bytes = read_bytes(file, end_offset - kLocatorBytes, kLocatorBytes);
  Fields locator(locator_bytes, "the zip64 locator");
  if (locator.number(4) != kEnd64Locator) throw std::runtime_error("the zip64 locator is missing");
  locator.number(4);
  const std::string end_bytes = read_bytes(file, locator.number(8), kEnd64Bytes);
  Fields end(end_bytes, "the zip64 end record");
  if (end.number(4) != kEnd64) throw std::runtime_error("the zip64 end record is missing");
  end.text(20);
  DirectoryPlace place;
  end.number(8);
  place.count = end.number(8);
  place.bytes = end.number(8);
  place.offset = end.number(8);
  return place;
}

DirectoryPlace find_directory(const File& file) {
  // The end record is the last thing in the file, but for a comment of up to 64 KiB.
  const uint64_t tail_bytes = std::min<uint64_t>(file.size(), kEndBytes + 0xFFFF);
  const std::string tail = read_bytes(file, file.size() - tail_bytes, tail_bytes);
  for (std::size_t at = tail.size() >= kEndBytes ? tail.size() - kEndBytes + 1 : 0; at-- > 0;) {
    Fields end(std::string_view(tail).substr(at), "the end record");
    if (end.number(4) != kEnd) continue;
    end.text(6);
    DirectoryPlace place;
    place.count = end.number(2);
    place.bytes = end.number(4);
    place.offset = end.number(4);
    if (at + kEndBytes + end.number(2) != tail.size()) continue;
    if (place.count == 0xFFFF || place.bytes == kIn64 || place.offset == kIn64)
      return place_of_zip64(file, file.size() - tail_bytes + at);
    return place;
  }
  throw std::runtime_error("is no zip archive: the directory at its end is missing (cut short?)");
}

// The values of the zip64 extra take the place of those fields that say so, in this order.
void take_zip64(std::string_view extra, uint64_t& bytes, uint64_t& stored_bytes, uint64_t& header_offset) {
  Fields fields(extra, "an extra field");
  while (!fields.empty()) {
    const uint64_t id = fields.number(2);
    const uint64_t size = fields.number(2);
    const std::string_view content = fields.text(size);
    if (id != 1) continue;
    Fields values(content, "the zip64 extra field");
    for (uint64_t* field : {&bytes, &stored_bytes, &header_offset})
      if (*field == kIn64) *field = values.number(8);
    return;
  }
}

uint64_t data_offset(const File& file, uint64_t header_offset) {
  const std::string bytes = read_bytes(file, header_offset, kLocalBytes);
  Fields local(bytes, "its header");
  if (local.number(4) != kLocalHeader) throw std::runtime_error("its header is not where the directory says");
  local.text(22);
  const uint64_t name_bytes = local.number(2);
  return header_offset + kLocalBytes + name_bytes + local.number(2);
}

void read_entry(const File& file, Fields& directory, ZipDirectory& entries) {
  if (directory.number(4) != kDirectoryHeader) throw std::runtime_error("the directory is damaged");
  directory.text(4);
  const uint64_t flags = directory.number(2);
  const uint64_t method = directory.number(2);
  directory.text(4);
  ZipEntry entry;
  entry.crc = static_cast<uint32_t>(directory.number(4));
  uint64_t stored_bytes = directory.number(4);
  entry.bytes = directory.number(4);
  const uint64_t name_bytes = directory.number(2);
  const uint64_t extra_bytes = directory.number(2);
  const uint64_t comment_bytes = directory.number(2);
  directory.text(8);
  uint64_t header_offset = directory.number(4);
  const std::string name(directory.text(name_bytes));
  const std::string_view extra = directory.text(extra_bytes);
  directory.text(comment_bytes);
  try {
    take_zip64(extra, entry.bytes, stored_bytes, header_offset);
    entry.stored = method == 0 && !(flags & 1);
    if (entry.stored && stored_bytes != entry.bytes) throw std::runtime_error("has two different sizes");
    entry.bytes = stored_bytes;
    entry.offset = data_offset(file, header_offset);
    if (entry.offset > file.size() || entry.bytes > file.size() - entry.offset)
      throw std::runtime_error("ends outside the file");
  } catch (const std::runtime_error& error) {
    throw std::runtime_error("entry \"" + name + "\": " + error.what());
  }
  if (!entries.emplace(name, entry).second) throw std::runtime_error("two entries are named \"" + name + "\"");
}

class Bytes {
 public:
  Bytes& number(uint64_t value, std::size_t size) {
    for (std::size_t i = 0; i < size; ++i) bytes_ += static_cast<char>(value >> (8 * i));
    return *this;
  }
  Bytes& text(std::string_view text) {
    bytes_ += text;
    return *this;
  }
  const std::string& str() const { return bytes_; }

 private:
  std::string bytes_;
};

constexpr uint64_t kVersion = 45;      // the one with zip64
constexpr uint64_t kUtf8Name = 0x800;  // flag
constexpr uint64_t kDate = 0x0021;     // 1 January 1980: the same tensors are the same file

uint64_t in_32_bits(uint64_t value) {
  return std::min(value, kIn64);
}

}  // namespace

ZipDirectory read_zip_directory(const File& file, const std::string& origin) {
  try {
    const DirectoryPlace place = find_directory(file);
    if (place.bytes > kMaxDirectory || place.count > kMaxEntries)
      throw std::runtime_error("a directory of " + std::to_string(place.count) + " entries is too large");
    const std::string bytes = read_bytes(file, place.offset, place.bytes);
    Fields directory(bytes, "the directory");
    ZipDirectory entries;
    for (uint64_t i = 0; i < place.count; ++i) read_entry(file, directory, entries);
    return entries;
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(origin + ": " + error.what());
  }
}

void ZipWriter::append(std::string_view bytes) {
  file_.append(std::as_bytes(std::span(bytes.data(), bytes.size())));
  at_ += bytes.size();
}

void ZipWriter::begin(const std::string& name, uint64_t bytes, uint32_t crc) {
  placed_.push_back({name, at_, bytes, crc});
  Bytes extra;
  if (bytes >= kIn64) extra.number(1, 2).number(16, 2).number(bytes, 8).number(bytes, 8);
  const uint64_t unpadded = at_ + kLocalBytes + name.size() + extra.str().size() + 4;
  const uint64_t padding = (kAlignment - unpadded % kAlignment) % kAlignment;
  extra.number('F' | 'B' << 8, 2).number(padding, 2).text(std::string(padding, 'Z'));
  Bytes header;
  header.number(kLocalHeader, 4).number(kVersion, 2).number(kUtf8Name, 2).number(0, 2).number(0, 2).number(kDate, 2);
  header.number(crc, 4).number(in_32_bits(bytes), 4).number(in_32_bits(bytes), 4);
  header.number(name.size(), 2).number(extra.str().size(), 2).text(name).text(extra.str());
  append(header.str());
  at_ += bytes;
}

void ZipWriter::add(const std::string& name, std::string_view content) {
  const auto bytes = std::as_bytes(std::span(content.data(), content.size()));
  begin(name, bytes.size(), crc32(bytes));
  file_.append(bytes);
}

void ZipWriter::finish() {
  const uint64_t directory = at_;
  for (const Placed& entry : placed_) {
    Bytes extra;
    if (entry.bytes >= kIn64) extra.number(entry.bytes, 8).number(entry.bytes, 8);
    if (entry.header_offset >= kIn64) extra.number(entry.header_offset, 8);
    Bytes zip64;
    if (!extra.str().empty()) zip64.number(1, 2).number(extra.str().size(), 2).text(extra.str());
    Bytes header;
    header.number(kDirectoryHeader, 4).number(kVersion, 2).number(kVersion, 2).number(kUtf8Name, 2).number(0, 2);
    header.number(0, 2).number(kDate, 2).number(entry.crc, 4);
    header.number(in_32_bits(entry.bytes), 4).number(in_32_bits(entry.bytes), 4);
    header.number(entry.name.size(), 2).number(zip64.str().size(), 2).number(0, 2).number(0, 2).number(0, 2);
    header.number(0, 4).number(in_32_bits(entry.header_offset), 4).text(entry.name).text(zip64.str());
    append(header.str());
  }
  const uint64_t end = at_;
  const uint64_t count = placed_.size();
  Bytes record;
  if (count >= 0xFFFF || directory >= kIn64 || end - directory >= kIn64) {
    record.number(kEnd64, 4).number(kEnd64Bytes - 12, 8).number(kVersion, 2).number(kVersion, 2).number(0, 8);
    record.number(count, 8).number(count, 8).number(end - directory, 8).number(directory, 8);
    record.number(kEnd64Locator, 4).number(0, 4).number(end, 8).number(1, 4);
  }
  const uint64_t short_count = std::min<uint64_t>(count, 0xFFFF);
  record.number(kEnd, 4).number(0, 4).number(short_count, 2).number(short_count, 2);
  record.number(in_32_bits(end - directory), 4).number(in_32_bits(directory), 4).number(0, 2);
  append(record.str());
}

}  // namespace troupe
