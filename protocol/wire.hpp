// The wire form of messages: strict encode and decode of every struct that lists its fields, as a MessagePack map with
// the field names as keys. Nothing here allocates by a count that was merely claimed: an element costs at least a byte
// of input, and counts and sizes have limits. The nesting is that of the C++ types, so no input can nest deeper.
//
// A tensor (Attachment) stands in the body as {"dtype": "i32", "shape": [n, ...], "frame": k}; its bytes are the k-th
// frame behind the body, shared with the message and never copied (except when a received frame is not aligned for its
// dtype, which happens to small frames only).
//
// decode() throws DecodeError, one line that names the key, for: an unknown, missing or duplicate key, a wrong type, a
// number out of the field's range, a NaN or infinity, bytes after the map, an attachment frame unused or used twice, a
// shape that is negative or overflows, bytes that are not dtype_size * product(shape), a limit exceeded.
// encode() throws std::invalid_argument for a NaN or infinity and for an attachment whose bytes and shape disagree:
// what the receiver would refuse is refused at its source.
//
// Strings are UTF-8 by convention; the bytes are not checked. A number field accepts every MessagePack integer width; a
// double field also accepts float32 and integers up to 2^53 (some languages write 1.0 as 1).
// All functions are pure: any thread.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "protocol/types.hpp"

namespace troupe {

class DecodeError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Immutable bytes that share ownership of whatever holds them: one part of a multi-part message.
struct Frame {
  std::shared_ptr<const void> owner;
  std::span<const std::byte> bytes;

  static Frame of(std::string text);
  std::string_view text() const { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }
};

// A message's body and the attachments it refers to.
struct Encoded {
  Frame body;
  std::vector<Frame> attachments;
};

namespace wire {

inline constexpr std::size_t kMaxElements = 1 << 20;      // of one array or map
inline constexpr std::size_t kMaxStringBytes = 16 << 20;  // of one string
inline constexpr std::size_t kMaxAttachments = 256;       // of one message
inline constexpr std::size_t kMaxRank = 8;                // of one attachment

// Where in a message the reader or writer stands, for error lines: "score: responses[3]".
class Path {
 public:
  explicit Path(std::string_view root) : root_(root) {}
  void enter(std::string_view key) { steps_.push_back({key, -1}); }
  void at(std::size_t index) {
    if (!steps_.empty()) steps_.back().index = static_cast<int64_t>(index);
  }
  void leave() { steps_.pop_back(); }
  std::string text() const;

 private:
  struct Step {
    std::string_view key;
    int64_t index;
  };
  std::string_view root_;
  std::vector<Step> steps_;
};

// How an attachment stands in the body.
struct AttachmentPlace {
  std::string dtype;
  std::vector<int64_t> shape;
  uint32_t frame = 0;
  static constexpr std::tuple kFields{Field{"dtype", &AttachmentPlace::dtype}, Field{"shape", &AttachmentPlace::shape},
                                      Field{"frame", &AttachmentPlace::frame}};
};
TROUPE_FIELDS_COMPLETE(AttachmentPlace);

class Writer {
 public:
  explicit Writer(std::string_view root) : path(root) {}
  void boolean(bool value);
  void unsigned_integer(uint64_t value);
  void signed_integer(int64_t value);
  void real(double value);
  void string(std::string_view value);
  void array(std::size_t count);
  void map(std::size_t count);
  AttachmentPlace place(const Attachment& value);  // takes the next frame for it
  Encoded finish() { return {Frame::of(std::move(out_)), std::move(attachments_)}; }

  Path path;

 private:
  void head(uint8_t code, uint64_t value, int num_bytes);
  [[noreturn]] void refuse(const std::string& why) const;
  std::string out_;
  std::vector<Frame> attachments_;
};

class Reader {
 public:
  Reader(std::span<const std::byte> body, std::span<const Frame> attachments, std::string_view root);
  bool boolean();
  uint64_t unsigned_integer(uint64_t max);
  int64_t signed_integer(int64_t min, int64_t max);
  double real();
  std::string_view string();  // lies in the body
  std::size_t array();
  std::size_t map();
  void skip_scalar();  // a number, string, boolean or nil of any kind
  Attachment attachment(const AttachmentPlace& place);
  void finish() const;  // everything was read, every frame used
  [[noreturn]] void refuse(const std::string& why) const;

  Path path;

 private:
  struct Integer {
    uint64_t bits;
    bool negative;
  };
  uint8_t byte();
  uint64_t big_endian(int num_bytes);
  Integer integer(uint8_t code);
  std::size_t count(uint64_t claimed, const char* kind) const;
  [[noreturn]] void wrong_type(const char* expected, uint8_t code) const;
  std::span<const std::byte> body_;
  std::size_t at_ = 0;
  std::span<const Frame> attachments_;
  std::vector<bool> used_;
};

template <class T>
inline constexpr bool is_vector = false;
template <class E>
inline constexpr bool is_vector<std::vector<E>> = true;
template <class T>
inline constexpr bool is_string_map = false;
template <class V>
inline constexpr bool is_string_map<std::map<std::string, V>> = true;

template <class T>
void write(Writer& out, const T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    out.boolean(value);
  } else if constexpr (std::is_integral_v<T> && std::is_unsigned_v<T>) {
    out.unsigned_integer(value);
  } else if constexpr (std::is_integral_v<T>) {
    out.signed_integer(value);
  } else if constexpr (std::is_floating_point_v<T>) {
    out.real(value);
  } else if constexpr (std::is_same_v<T, std::string>) {
    out.string(value);
  } else if constexpr (std::is_same_v<T, Attachment>) {
    write(out, out.place(value));
  } else if constexpr (is_vector<T>) {
    out.array(value.size());
    for (std::size_t i = 0; i < value.size(); ++i) {
      out.path.at(i);
      write(out, static_cast<const typename T::value_type&>(value[i]));
    }
  } else if constexpr (is_string_map<T>) {
    out.map(value.size());
    for (const auto& [key, element] : value) {
      out.string(key);
      out.path.enter(key);
      write(out, element);
      out.path.leave();
    }
  } else {
    static_assert(Fielded<T>, "this type has no wire form");
    out.map(field_count<T>);
    for_each_field(value, [&](std::string_view name, const auto& field) {
      out.string(name);
      out.path.enter(name);
      write(out, field);
      out.path.leave();
    });
  }
}

template <Fielded T>
void read_fields(Reader& in, T& out);

template <class T>
void read(Reader& in, T& out) {
  if constexpr (std::is_same_v<T, bool>) {
    out = in.boolean();
  } else if constexpr (std::is_integral_v<T> && std::is_unsigned_v<T>) {
    out = static_cast<T>(in.unsigned_integer(std::numeric_limits<T>::max()));
  } else if constexpr (std::is_integral_v<T>) {
    out = static_cast<T>(in.signed_integer(std::numeric_limits<T>::min(), std::numeric_limits<T>::max()));
  } else if constexpr (std::is_floating_point_v<T>) {
    out = static_cast<T>(in.real());
  } else if constexpr (std::is_same_v<T, std::string>) {
    out = in.string();
  } else if constexpr (std::is_same_v<T, Attachment>) {
    AttachmentPlace place;
    read_fields(in, place);
    out = in.attachment(place);
  } else if constexpr (is_vector<T>) {
    const std::size_t count = in.array();
    out.reserve(std::min<std::size_t>(count, 1024));  // the count is only a claim until the elements were read
    for (std::size_t i = 0; i < count; ++i) {
      in.path.at(i);
      typename T::value_type element{};
      read(in, element);
      out.push_back(std::move(element));
    }
  } else if constexpr (is_string_map<T>) {
    const std::size_t count = in.map();
    for (std::size_t i = 0; i < count; ++i) {
      const std::string_view key = in.string();
      in.path.enter(key);
      const auto [place, fresh] = out.try_emplace(std::string(key));
      if (!fresh) in.refuse("duplicate key");
      read(in, place->second);
      in.path.leave();
    }
  } else {
    static_assert(Fielded<T>, "this type has no wire form");
    read_fields(in, out);
  }
}

template <Fielded T>
void read_fields(Reader& in, T& out) {
  const std::size_t count = in.map();
  std::array<bool, field_count<T> + 1> seen{};
  for (std::size_t i = 0; i < count; ++i) {
    const std::string_view key = in.string();
    in.path.enter(key);
    std::size_t slot = 0;
    bool known = false;
    for_each_field(out, [&](std::string_view name, auto& field) {
      if (!known && name == key) {
        known = true;
        if (std::exchange(seen[slot], true)) in.refuse("duplicate key");
        read(in, field);
      }
      ++slot;
    });
    if (!known) in.refuse("unknown key");
    in.path.leave();
  }
  std::size_t slot = 0;
  for_each_field(out, [&](std::string_view name, const auto&) {
    if (seen[slot++]) return;
    in.path.enter(name);
    in.refuse("missing key");
  });
}

template <class T>
constexpr std::string_view root_name() {
  if constexpr (requires { T::kName; }) {
    return T::kName;
  } else {
    return "body";
  }
}

}  // namespace wire

template <Fielded T>
Encoded encode(const T& message) {
  wire::Writer out(wire::root_name<T>());
  wire::write(out, message);
  return out.finish();
}

template <Fielded T>
T decode(const Frame& body, std::span<const Frame> attachments = {}) {
  wire::Reader in(body.bytes, attachments, wire::root_name<T>());
  T message{};
  wire::read_fields(in, message);
  in.finish();
  return message;
}

}  // namespace troupe
