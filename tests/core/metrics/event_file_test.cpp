#include "core/metrics/event_file.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <map>
#include <optional>

#include "tests/core/metrics/scratch_folder.hpp"

namespace troupe {
namespace {

// A strict reader of the format, written from its description alone (TFRecord, protobuf's wire format), with a CRC of
// its own: bit by bit.
uint32_t slow_crc32c(std::string_view bytes) {
  uint32_t crc = ~0u;
  for (const unsigned char byte : bytes) {
    crc ^= byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (0x82f63b78u & (0u - (crc & 1)));
  }
  return ~crc;
}
uint32_t unmasked(uint32_t masked) {
  return std::rotl(masked - 0xa282ead8u, 15);
}

template <class T>
T fixed(std::string_view& bytes) {
  T value{};
  if (bytes.size() < sizeof(T)) throw std::runtime_error("short");
  std::memcpy(&value, bytes.data(), sizeof(T));
  bytes.remove_prefix(sizeof(T));
  return value;
}
uint64_t varint(std::string_view& bytes) {
  uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = fixed<uint8_t>(bytes);
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
}
std::string_view take(std::string_view& bytes, std::size_t size) {
  if (bytes.size() < size) throw std::runtime_error("short");
  const std::string_view taken = bytes.substr(0, size);
  bytes.remove_prefix(size);
  return taken;
}

struct Event {
  double wall_time_s = 0;
  uint64_t step = 0;
  std::string file_version;
  std::map<std::string, float> scalars;
  std::optional<uint64_t> session_status;
};

Event parse_event(std::string_view bytes) {
  Event event;
  while (!bytes.empty()) {
    const uint64_t key = varint(bytes);
    if (key == (1 << 3 | 1))
      event.wall_time_s = fixed<double>(bytes);
    else if (key == (2 << 3 | 0))
      event.step = varint(bytes);
    else if (key == (3 << 3 | 2))
      event.file_version = take(bytes, varint(bytes));
    else if (key == (7 << 3 | 2)) {
      std::string_view log = take(bytes, varint(bytes));
      EXPECT_EQ(varint(log), 1u << 3 | 0u);
      event.session_status = varint(log);
    } else if (key == (5 << 3 | 2)) {
      for (std::string_view summary = take(bytes, varint(bytes)); !summary.empty();) {
        EXPECT_EQ(varint(summary), 1u << 3 | 2u);
        std::string_view value = take(summary, varint(summary));
        EXPECT_EQ(varint(value), 1u << 3 | 2u);
        const std::string tag(take(value, varint(value)));
        EXPECT_EQ(varint(value), 2u << 3 | 5u);
        event.scalars[tag] = fixed<float>(value);
        EXPECT_TRUE(value.empty());
      }
    } else
      throw std::runtime_error("unknown field");
  }
  return event;
}

std::vector<Event> read_events(const std::filesystem::path& file) {
  const std::string text = text_of(file);
  std::string_view bytes = text;
  std::vector<Event> events;
  while (!bytes.empty()) {
    const std::string_view length_bytes = bytes.substr(0, 8);
    const auto length = fixed<uint64_t>(bytes);
    EXPECT_EQ(unmasked(fixed<uint32_t>(bytes)), slow_crc32c(length_bytes));
    const std::string_view payload = take(bytes, length);
    EXPECT_EQ(unmasked(fixed<uint32_t>(bytes)), slow_crc32c(payload));
    events.push_back(parse_event(payload));
  }
  return events;
}

TEST(EventFile, HoldsEveryScalarOfEveryStep) {
  const ScratchFolder folder;
  EventFile file(folder / "tensorboard", 0);
  file.write(1, 1.7e9, {{"reward_mean", 0.25}, {"kl", 1.0 / 3}});
  file.write(300, 1.7e9 + 1, {{"reward_mean", -1}});
  const auto events = read_events(file.file());
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[0].file_version, "brain.Event:2");
  EXPECT_EQ(events[1].step, 1u);
  EXPECT_EQ(events[1].wall_time_s, 1.7e9);
  EXPECT_EQ(events[1].scalars, (std::map<std::string, float>{{"reward_mean", 0.25f}, {"kl", 1.0f / 3}}));
  EXPECT_EQ(events[2].step, 300u);
  EXPECT_EQ(events[2].scalars.at("reward_mean"), -1.0f);
}

TEST(EventFile, LeavesOutWhatIsNotFinite) {
  const ScratchFolder folder;
  EventFile file(folder.path(), 0);
  file.write(1, 0, {{"loss", std::nan("")}, {"kl", 2}});
  EXPECT_EQ(read_events(file.file())[1].scalars, (std::map<std::string, float>{{"kl", 2.0f}}));
}

TEST(EventFile, AResumeTellsReadersToForgetLaterSteps) {
  const ScratchFolder folder;
  const EventFile first(folder.path(), 0);
  EventFile second(folder.path(), 7);
  EXPECT_NE(first.file(), second.file());
  EXPECT_TRUE(second.file().filename().string().starts_with("events.out.tfevents."));
  const auto events = read_events(second.file());
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[1].step, 8u);
  EXPECT_EQ(events[1].session_status, std::optional<uint64_t>(1));
}

}  // namespace
}  // namespace troupe
