#include "protocol/wire.hpp"

#include <bit>
#include <cmath>

namespace troupe {

Frame Frame::of(std::string text) {
  auto held = std::make_shared<const std::string>(std::move(text));
  return {held, std::as_bytes(std::span<const char>(held->data(), held->size()))};
}

namespace wire {
namespace {

constexpr uint8_t kNil = 0xc0, kFalse = 0xc2, kTrue = 0xc3, kFloat32 = 0xca, kFloat64 = 0xcb;
constexpr uint8_t kUint8 = 0xcc, kUint64 = 0xcf, kInt8 = 0xd0, kInt64 = 0xd3;
constexpr uint8_t kStr8 = 0xd9, kStr16 = 0xda, kStr32 = 0xdb;
constexpr uint8_t kArray16 = 0xdc, kArray32 = 0xdd, kMap16 = 0xde, kMap32 = 0xdf;
constexpr int64_t kExactInDouble = int64_t{1} << 53;

const char* kind_of(uint8_t code) {
  if (code <= 0x7f || code >= 0xe0 || (code >= kUint8 && code <= kInt64)) return "an integer";
  if (code <= 0x8f || code == kMap16 || code == kMap32) return "a map";
  if (code <= 0x9f || code == kArray16 || code == kArray32) return "an array";
  if (code <= 0xbf || (code >= kStr8 && code <= kStr32)) return "a string";
  if (code == kFalse || code == kTrue) return "a boolean";
  if (code == kFloat32 || code == kFloat64) return "a float";
  if (code == kNil) return "nil";
  if (code >= 0xc4 && code <= 0xc6) return "binary";
  return "an extension";
}

DType dtype_from(std::string_view name, const Reader& in) {
  for (DType d : {DType::kU8, DType::kI32, DType::kI64, DType::kF32, DType::kBF16})
    if (dtype_name(d) == name) return d;
  in.refuse("unknown dtype '" + std::string(name.substr(0, 32)) + "', expected u8, i32, i64, f32 or bf16");
}

// dtype_size * product(shape) as Attachment::numel() counts it (an empty shape holds nothing); false on overflow.
bool byte_count(DType dtype, const std::vector<int64_t>& shape, uint64_t& bytes) {
  uint64_t n = shape.empty() ? 0 : dtype_size(dtype);
  for (int64_t extent : shape)
    if (extent < 0 || __builtin_mul_overflow(n, static_cast<uint64_t>(extent), &n)) return false;
  bytes = n;
  return true;
}

}  // namespace

std::string Path::text() const {
  std::string text(root_);
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    text += i == 0 ? ": " : ".";
    text += steps_[i].key.substr(0, 64);
    if (steps_[i].index >= 0) text += '[' + std::to_string(steps_[i].index) + ']';
  }
  return text;
}

// ---- Writer -------------------------------------------------------------------------------------------------------

void Writer::head(uint8_t code, uint64_t value, int num_bytes) {
  out_ += static_cast<char>(code);
  for (int i = num_bytes - 1; i >= 0; --i) out_ += static_cast<char>(value >> (8 * i));
}

void Writer::refuse(const std::string& why) const {
  throw std::invalid_argument(path.text() + ": " + why);
}

void Writer::boolean(bool value) {
  head(value ? kTrue : kFalse, 0, 0);
}

void Writer::unsigned_integer(uint64_t value) {
  if (value <= 0x7f) return head(static_cast<uint8_t>(value), 0, 0);
  int width = 0;  // 0, 1, 2, 3 for 1, 2, 4, 8 bytes
  while (width < 3 && value >> (8 << width)) ++width;
  head(static_cast<uint8_t>(kUint8 + width), value, 1 << width);
}

void Writer::signed_integer(int64_t value) {
  if (value >= 0) return unsigned_integer(static_cast<uint64_t>(value));
  if (value >= -32) return head(static_cast<uint8_t>(value), 0, 0);
  int width = 0;
  while (width < 3 && value < -(int64_t{1} << ((8 << width) - 1))) ++width;
  head(static_cast<uint8_t>(kInt8 + width), static_cast<uint64_t>(value), 1 << width);
}

void Writer::real(double value) {
  if (!std::isfinite(value)) refuse("not a finite number");
  head(kFloat64, std::bit_cast<uint64_t>(value), 8);
}

void Writer::string(std::string_view value) {
  const std::size_t n = value.size();
  if (n > kMaxStringBytes) refuse("string of " + std::to_string(n) + " bytes is over the wire's limit");
  if (n < 32) {
    head(static_cast<uint8_t>(0xa0 | n), 0, 0);
  } else {
    const int width = n <= 0xff ? 0 : n <= 0xffff ? 1 : 2;
    head(static_cast<uint8_t>(kStr8 + width), n, 1 << width);
  }
  out_ += value;
}

void Writer::array(std::size_t n) {
  if (n > kMaxElements) refuse("array of " + std::to_string(n) + " elements is over the wire's limit");
  if (n < 16) return head(static_cast<uint8_t>(0x90 | n), 0, 0);
  head(n <= 0xffff ? kArray16 : kArray32, n, n <= 0xffff ? 2 : 4);
}

void Writer::map(std::size_t n) {
  if (n > kMaxElements) refuse("map of " + std::to_string(n) + " elements is over the wire's limit");
  if (n < 16) return head(static_cast<uint8_t>(0x80 | n), 0, 0);
  head(n <= 0xffff ? kMap16 : kMap32, n, n <= 0xffff ? 2 : 4);
}

AttachmentPlace Writer::place(const Attachment& value) {
  uint64_t expected = 0;
  if (value.shape.size() > kMaxRank || !byte_count(value.dtype, value.shape, expected) ||
      expected != value.bytes.size())
    refuse("attachment holds " + std::to_string(value.bytes.size()) + " bytes, which its shape and dtype do not");
  if (attachments_.size() == kMaxAttachments) refuse("too many attachments");
  attachments_.push_back({value.owner, value.bytes});
  return {std::string(dtype_name(value.dtype)), value.shape, static_cast<uint32_t>(attachments_.size() - 1)};
}

// ---- Reader -------------------------------------------------------------------------------------------------------

Reader::Reader(std::span<const std::byte> body, std::span<const Frame> attachments, std::string_view root)
    : path(root), body_(body), attachments_(attachments), used_(attachments.size()) {
  if (attachments.size() > kMaxAttachments) refuse("too many attachment frames");
}

void Reader::refuse(const std::string& why) const {
  throw DecodeError(path.text() + ": " + why);
}

void Reader::wrong_type(const char* expected, uint8_t code) const {
  refuse(std::string("expected ") + expected + ", found " + kind_of(code));
}

uint8_t Reader::byte() {
  if (at_ == body_.size()) refuse("the message ends here");
  return std::to_integer<uint8_t>(body_[at_++]);
}

uint64_t Reader::big_endian(int num_bytes) {
  uint64_t value = 0;
  for (int i = 0; i < num_bytes; ++i) value = value << 8 | byte();
  return value;
}

bool Reader::boolean() {
  const uint8_t code = byte();
  if (code != kFalse && code != kTrue) wrong_type("a boolean", code);
  return code == kTrue;
}

Reader::Integer Reader::integer(uint8_t code) {
  if (code <= 0x7f) return {code, false};
  if (code >= 0xe0) return {static_cast<uint64_t>(static_cast<int8_t>(code)), true};
  if (code < kUint8 || code > kInt64) wrong_type("an integer", code);
  const bool is_signed = code >= kInt8;
  const int num_bytes = 1 << (code - (is_signed ? kInt8 : kUint8));
  const uint64_t raw = big_endian(num_bytes);
  const bool negative = is_signed && (raw >> (8 * num_bytes - 1)) != 0;
  const uint64_t extension = negative && num_bytes < 8 ? ~uint64_t{0} << (8 * num_bytes) : 0;
  return {raw | extension, negative};
}

uint64_t Reader::unsigned_integer(uint64_t max) {
  const Integer n = integer(byte());
  if (n.negative || n.bits > max) refuse("number out of range, expected 0 to " + std::to_string(max));
  return n.bits;
}

int64_t Reader::signed_integer(int64_t min, int64_t max) {
  const Integer n = integer(byte());
  const auto value = static_cast<int64_t>(n.bits);
  if ((!n.negative && value < 0) || value < min || value > max)
    refuse("number out of range, expected " + std::to_string(min) + " to " + std::to_string(max));
  return value;
}

double Reader::real() {
  const uint8_t code = byte();
  double value = 0;
  if (code == kFloat64) {
    value = std::bit_cast<double>(big_endian(8));
  } else if (code == kFloat32) {
    value = std::bit_cast<float>(static_cast<uint32_t>(big_endian(4)));
  } else if (code <= 0x7f || code >= 0xe0 || (code >= kUint8 && code <= kInt64)) {
    const Integer n = integer(code);
    const auto whole = static_cast<int64_t>(n.bits);
    if ((!n.negative && whole < 0) || whole > kExactInDouble || whole < -kExactInDouble)
      refuse("integer is not exact as a float");
    value = static_cast<double>(whole);
  } else {
    wrong_type("a number", code);
  }
  if (!std::isfinite(value)) refuse("not a finite number");
  return value;
}

// Checks a claimed count against what is left of the body, one byte an element at least.
std::size_t Reader::count(uint64_t claimed, const char* kind) const {
  if (claimed > kMaxElements || claimed > body_.size() - at_)
    refuse(std::string(kind) + " claims " + std::to_string(claimed) + " elements, more than can be here");
  return static_cast<std::size_t>(claimed);
}

std::size_t Reader::array() {
  const uint8_t code = byte();
  if (code >= 0x90 && code <= 0x9f) return count(code & 0x0f, "array");
  if (code != kArray16 && code != kArray32) wrong_type("an array", code);
  return count(big_endian(code == kArray16 ? 2 : 4), "array");
}

std::size_t Reader::map() {
  const uint8_t code = byte();
  if (code >= 0x80 && code <= 0x8f) return count(code & 0x0f, "map");
  if (code != kMap16 && code != kMap32) wrong_type("a map", code);
  return count(big_endian(code == kMap16 ? 2 : 4), "map");
}

std::string_view Reader::string() {
  const uint8_t code = byte();
  uint64_t size = code & 0x1f;
  if (code >= kStr8 && code <= kStr32) {
    size = big_endian(1 << (code - kStr8));
  } else if (code < 0xa0 || code > 0xbf) {
    wrong_type("a string", code);
  }
  if (size > kMaxStringBytes || size > body_.size() - at_)
    refuse("string claims " + std::to_string(size) + " bytes, more than can be here");
  const auto* begin = reinterpret_cast<const char*>(body_.data()) + at_;
  at_ += static_cast<std::size_t>(size);
  return {begin, static_cast<std::size_t>(size)};
}

void Reader::skip_scalar() {
  const uint8_t code = byte();
  if (code == kNil || code == kFalse || code == kTrue) return;
  --at_;
  if ((code >= 0xa0 && code <= 0xbf) || (code >= kStr8 && code <= kStr32)) {
    string();
  } else if (code == kFloat32 || code == kFloat64) {
    byte();
    big_endian(code == kFloat32 ? 4 : 8);
  } else {
    integer(byte());
  }
}

Attachment Reader::attachment(const AttachmentPlace& place) {
  const DType dtype = dtype_from(place.dtype, *this);
  if (place.shape.size() > kMaxRank) refuse("shape has more than 8 dimensions");
  if (place.frame >= attachments_.size())
    refuse("frame " + std::to_string(place.frame) + " of " + std::to_string(attachments_.size()) + " does not exist");
  if (used_[place.frame]) refuse("frame " + std::to_string(place.frame) + " is used twice");
  used_[place.frame] = true;
  const Frame& frame = attachments_[place.frame];
  uint64_t expected = 0;
  if (!byte_count(dtype, place.shape, expected)) refuse("shape is negative or overflows");
  if (expected != frame.bytes.size())
    refuse("shape and dtype ask for " + std::to_string(expected) + " bytes, the frame has " +
           std::to_string(frame.bytes.size()));
  if (reinterpret_cast<std::uintptr_t>(frame.bytes.data()) % dtype_size(dtype) == 0)
    return {dtype, place.shape, frame.owner, frame.bytes};
  auto aligned = std::make_shared<std::vector<uint64_t>>(frame.bytes.size() / 8 + 1);
  std::memcpy(aligned->data(), frame.bytes.data(), frame.bytes.size());
  return {dtype, place.shape, aligned, std::as_bytes(std::span(*aligned)).first(frame.bytes.size())};
}

void Reader::finish() const {
  if (at_ != body_.size()) refuse(std::to_string(body_.size() - at_) + " bytes behind the message");
  for (std::size_t i = 0; i < used_.size(); ++i)
    if (!used_[i]) refuse("attachment frame " + std::to_string(i) + " is not used");
}

}  // namespace wire
}  // namespace troupe
