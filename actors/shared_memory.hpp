// Large tensors between processes of one host: anonymous memory files handed over by their descriptor. Nothing has a
// name in the file system but the server's socket (mode 0600, peers of the same user only), and the memory vanishes
// with its last descriptor or mapping, however its owners die.
//
// Writer:  auto region = SharedRegion::create(bytes); fill region->writable(); region->seal();
//          server.publish("v12", region);  ->  location "memfd:" + server.path() + "#v12"
// Reader:  auto region = open_region(manifest.location, 10s);  region->bytes();
// In one process "inproc:NAME" hands the same region over by pointer: InprocRegions::publish and open_region.
#pragma once

#include <cstddef>
#include <functional>
#include <future>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "actors/clock.hpp"

namespace troupe {

// A memory file and its mapping. Bytes are zero at first. One writer until seal(); after it, immutable: the kernel
// refuses everyone else writable mappings, writing, growing and shrinking, the writer's own mapping is read-only, so a
// reader can neither see a change nor be killed by a truncation. Shared ownership; any thread.
class SharedRegion {
 public:
  // Throws std::runtime_error (with the number of bytes) when the memory can't be had; bytes > 0.
  static std::shared_ptr<SharedRegion> create(std::size_t bytes);
  // Takes over a descriptor received from elsewhere; read-only. Throws when it is not a sealed memory file.
  static std::shared_ptr<SharedRegion> adopt(int fd);
  ~SharedRegion();
  SharedRegion(const SharedRegion&) = delete;
  SharedRegion& operator=(const SharedRegion&) = delete;

  std::span<std::byte> writable();  // throws std::logic_error once sealed
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  // Ends writing. Spans from writable() must not be written through afterwards.
  void seal();
  int fd() const { return fd_; }

 private:
  SharedRegion(int fd, std::byte* data, std::size_t size, bool sealed);
  int fd_;
  std::byte* data_;
  std::size_t size_;
  bool sealed_;
};

// Keeps one region ready in advance: the kernel needs longer to find and clear the pages than a copy takes to fill
// them. Costs the memory of one region more. One thread.
class RegionSupply {
 public:
  explicit RegionSupply(std::size_t bytes) : bytes_(bytes) { prepare(); }
  std::shared_ptr<SharedRegion> take() {  // throws as SharedRegion::create
    auto region = next_.get();
    prepare();
    return region;
  }

 private:
  void prepare() {
    next_ = std::async(std::launch::async, [bytes = bytes_] { return SharedRegion::create(bytes); });
  }
  std::size_t bytes_;
  std::future<std::shared_ptr<SharedRegion>> next_;
};

// Hands out regions by name over a unix socket; a thread of its own answers, so a computing role never delays a reader.
class RegionServer {
 public:
  // `socket_path` at most 107 bytes, in a private directory; an old socket there is replaced. Throws
  // std::runtime_error.
  explicit RegionServer(std::string socket_path);
  ~RegionServer();
  RegionServer(const RegionServer&) = delete;
  RegionServer& operator=(const RegionServer&) = delete;

  // Any thread. The region must be sealed; an existing name is replaced. Readers that have it keep it.
  void publish(const std::string& name, std::shared_ptr<SharedRegion> region);
  void withdraw(const std::string& name);
  const std::string& path() const;

 private:
  class Listener;
  std::unique_ptr<Listener> listener_;
};

// The region `name` of the server at `socket_path`. Retries until the deadline while the server is not there (it may be
// restarting) or does not know the name yet; then throws std::runtime_error naming both. Meanwhile `waiting` is called
// at least twice a second, so that the caller can beat its lease.
std::shared_ptr<SharedRegion> fetch_region(
    const std::string& socket_path, const std::string& name, Millis deadline,
    const std::function<void()>& waiting = [] {});

// Regions of this process by name, for nodes that are threads of one process.
class InprocRegions {
 public:
  static void publish(const std::string& name, std::shared_ptr<SharedRegion> region);
  static void withdraw(const std::string& name);
  static std::shared_ptr<SharedRegion> find(const std::string& name);  // null when unknown
};

// By a manifest's location: "memfd:SOCKET_PATH#NAME" or "inproc:NAME". Throws std::invalid_argument for another form.
std::shared_ptr<SharedRegion> open_region(
    std::string_view location, Millis deadline, const std::function<void()>& waiting = [] {});

}  // namespace troupe
