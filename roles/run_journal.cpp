#include "roles/run_journal.hpp"

#include <cstring>
#include <stdexcept>

#include "protocol/wire.hpp"

namespace troupe {
namespace {

// A message and its attachments as one run of bytes: u32 frames, u64 size of each, then the frames. Little-endian.
std::vector<std::byte> to_payload(const Encoded& encoded) {
  std::vector<std::span<const std::byte>> frames{encoded.body.bytes};
  for (const Frame& frame : encoded.attachments) frames.push_back(frame.bytes);
  std::size_t bytes = sizeof(uint32_t);
  for (const auto& frame : frames) bytes += sizeof(uint64_t) + frame.size();
  std::vector<std::byte> out(bytes);
  std::byte* at = out.data();
  const auto put = [&](const void* from, std::size_t size) {
    std::memcpy(at, from, size);
    at += size;
  };
  const auto count = static_cast<uint32_t>(frames.size());
  put(&count, sizeof count);
  for (const auto& frame : frames) {
    const uint64_t size = frame.size();
    put(&size, sizeof size);
  }
  for (const auto& frame : frames)
    if (!frame.empty()) put(frame.data(), frame.size());
  return out;
}

Experience from_payload(std::span<const std::byte> payload) {
  const auto take = [&](auto value) {
    if (payload.size() < sizeof(value)) throw std::runtime_error("a journal record ends within its head");
    std::memcpy(&value, payload.data(), sizeof(value));
    payload = payload.subspan(sizeof(value));
    return value;
  };
  const auto count = take(uint32_t{});
  if (count == 0 || count > 1 + wire::kMaxAttachments) throw std::runtime_error("a journal record with a broken head");
  std::vector<uint64_t> sizes(count);
  for (uint64_t& size : sizes) size = take(uint64_t{});
  std::vector<Frame> frames;
  for (const uint64_t size : sizes) {
    if (payload.size() < size) throw std::runtime_error("a journal record ends within a frame");
    frames.push_back(Frame::of(std::string(reinterpret_cast<const char*>(payload.data()), size)));
    payload = payload.subspan(size);
  }
  if (!payload.empty()) throw std::runtime_error("a journal record with bytes behind its frames");
  return decode<Experience>(frames.front(), std::span<const Frame>(frames).subspan(1));
}

void expect_experience(uint8_t type, uint64_t offset) {
  if (type != kExperienceRecord)
    throw std::runtime_error("journal offset " + std::to_string(offset) + ": record type " + std::to_string(type) +
                             ", expected " + std::to_string(kExperienceRecord));
}

}  // namespace

RunJournal::RunJournal(Disk& disk, const std::filesystem::path& folder)
    : disk_(disk), folder_(folder), journal_(disk, folder) {
  read_journal(disk_, folder_, 0, [&](uint64_t offset, uint8_t type, std::span<const std::byte> payload) {
    expect_experience(type, offset);
    const uint64_t step = from_payload(payload).step;
    if (step != offsets_.size() + 1)
      throw std::runtime_error("journal offset " + std::to_string(offset) + ": step " + std::to_string(step) +
                               ", expected " + std::to_string(offsets_.size() + 1));
    offsets_.push_back(offset);
  });
}

void RunJournal::append(const Experience& batch) {
  if (batch.step != last_step() + 1)
    throw std::logic_error("step " + std::to_string(batch.step) + " journalled behind step " +
                           std::to_string(last_step()));
  const uint64_t offset = journal_.append(kExperienceRecord, experience_payload(batch));
  journal_.sync();
  offsets_.push_back(offset);
}

Experience RunJournal::read(uint64_t step) const {
  const uint64_t offset = offsets_.at(step - 1);
  const JournalRecord record = read_record(disk_, folder_, offset);
  expect_experience(record.type, offset);
  return from_payload(record.payload);
}

uint64_t RunJournal::end_of(uint64_t step) const {
  if (step == 0) return 0;
  return step == last_step() ? journal_.end_offset() : offsets_.at(step);
}

std::vector<std::byte> experience_payload(const Experience& batch) {
  return to_payload(encode(batch));
}

JournalEnd visit_experiences(const std::filesystem::path& folder,
                             const std::function<void(uint64_t, const Experience&)>& visit) {
  return read_journal(real_disk(), folder, 0, [&](uint64_t offset, uint8_t type, std::span<const std::byte> payload) {
    expect_experience(type, offset);
    visit(offset, from_payload(payload));
  });
}

std::vector<Experience> read_experiences(const std::filesystem::path& folder) {
  std::vector<Experience> out;
  visit_experiences(folder, [&](uint64_t, const Experience& batch) { out.push_back(batch); });
  return out;
}

}  // namespace troupe
