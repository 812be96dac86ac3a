// A file descriptor with one owner, and its way into another process.
#pragma once

#include <unistd.h>

#include <span>
#include <utility>

namespace troupe {

class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_ = -1;
};

// One message over a Unix socket that keeps messages apart (SOCK_SEQPACKET), with a descriptor (-1: none) beside its
// bytes. False when it can't be sent.
bool send_message(int socket, std::span<const char> bytes, int descriptor) noexcept;

// The next message, at most `buffer` of it: its length, 0 when the other side has closed, -1 when nothing can be
// received (errno). `descriptor` gets what came with it, closed on exec, or nothing.
ssize_t receive_message(int socket, std::span<char> buffer, Descriptor& descriptor) noexcept;

}  // namespace troupe
