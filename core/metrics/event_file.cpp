#include "core/metrics/event_file.hpp"

#include <unistd.h>

#include <atomic>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>

#include "core/io/crc32c.hpp"
#include "core/io/disk.hpp"

namespace troupe {
namespace {

static_assert(std::endian::native == std::endian::little, "protobuf and TFRecord numbers are little-endian");

// ---- protobuf wire format: a key is field << 3 | type, type 0 varint, 1 eight bytes, 2 length-delimited, 5 four bytes

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}
template <class T>
void put_fixed(std::string& out, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out.append(bytes, sizeof(T));
}
void put_key(std::string& out, uint32_t field, uint32_t type) {
  put_varint(out, field << 3 | type);
}
void put_bytes(std::string& out, uint32_t field, std::string_view bytes) {
  put_key(out, field, 2);
  put_varint(out, bytes.size());
  out.append(bytes);
}

// Event: wall_time 1 (double), step 2 (int64), file_version 3 (string), summary 5, session_log 7.
std::string event_head(double wall_time_s, uint64_t step) {
  std::string event;
  put_key(event, 1, 1);
  put_fixed(event, wall_time_s);
  put_key(event, 2, 0);
  put_varint(event, step);
  return event;
}

// Summary.Value: tag 1 (string), simple_value 2 (float).
std::string scalar(std::string_view tag, double value) {
  std::string text;
  put_bytes(text, 1, tag);
  put_key(text, 2, 5);
  put_fixed(text, static_cast<float>(value));
  return text;
}

uint32_t masked_crc(std::string_view bytes) {
  const uint32_t crc = crc32c(std::as_bytes(std::span(bytes.data(), bytes.size())));
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

double seconds_since_1970() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string new_file_name() {
  static std::atomic<int> count{0};
  char host[256] = "localhost";
  if (gethostname(host, sizeof(host) - 1) != 0) host[0] = '\0';
  // Ten digits: TensorBoard reads a folder's files in the order of their names.
  char seconds[32];
  std::snprintf(seconds, sizeof(seconds), "%010lld", static_cast<long long>(seconds_since_1970()));
  return std::string("events.out.tfevents.") + seconds + "." + host + "." + std::to_string(getpid()) + "." +
         std::to_string(count++);
}

}  // namespace

EventFile::EventFile(const std::filesystem::path& folder, uint64_t last_step) {
  std::filesystem::create_directories(folder);
  file_ = folder / new_file_name();
  out_.reset(std::fopen(file_.c_str(), "wxe"));
  if (!out_) throw DiskError("create", file_, errno);
  std::string version = event_head(seconds_since_1970(), 0);
  put_bytes(version, 3, "brain.Event:2");
  append(version);
  if (last_step == 0) return;
  std::string started;  // SessionLog: status 1, START = 1
  put_key(started, 1, 0);
  put_varint(started, 1);
  std::string event = event_head(seconds_since_1970(), last_step + 1);
  put_bytes(event, 7, started);
  append(event);
}

void EventFile::write(uint64_t step, double wall_time_s, const MetricValues& values) {
  std::string summary;
  for (const auto& [name, value] : values)
    if (std::isfinite(value)) put_bytes(summary, 1, scalar(name, value));
  std::string event = event_head(wall_time_s, step);
  put_bytes(event, 5, summary);
  append(event);
}

// A TFRecord: uint64 length, its masked CRC, the bytes, their masked CRC.
void EventFile::append(const std::string& event) {
  std::string record;
  put_fixed(record, static_cast<uint64_t>(event.size()));
  put_fixed(record, masked_crc(record));
  record += event;
  put_fixed(record, masked_crc(event));
  if (std::fwrite(record.data(), 1, record.size(), out_.get()) != record.size() || std::fflush(out_.get()) != 0)
    throw DiskError("write", file_, errno);
}

}  // namespace troupe
