#include "actors/shared_memory.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <thread>

#include "actors/descriptor.hpp"

namespace troupe {
namespace {

constexpr int kImmutable = F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW;
constexpr std::size_t kMaxNameBytes = 256;
constexpr Millis kTryFor{400};  // a server that does not answer, then the next try
constexpr char kHere = 1, kUnknown = 0;

[[noreturn]] void throw_errno(const std::string& what) {
  throw std::runtime_error(what + ": " + std::strerror(errno));
}

std::byte* map(int fd, std::size_t bytes, int protection, const std::string& what) {
  void* data = mmap(nullptr, bytes, protection, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED) throw_errno(what);
  return static_cast<std::byte*>(data);
}

// Touches every page of a writer's mapping, two parts at a time: the kernel clears them one by one. Where it can't be
// asked to (before Linux 5.14) they are cleared as they are written.
void touch_pages(std::byte* data, std::size_t bytes) {
  constexpr std::size_t kPart = 16 << 20;
  std::atomic<std::size_t> next{0};
  const auto touch = [&] {
    for (std::size_t at; (at = next.fetch_add(kPart)) < bytes;)
      (void)madvise(data + at, std::min(kPart, bytes - at), MADV_POPULATE_WRITE);
  };
  std::optional<std::jthread> other;
  if (bytes > kPart) other.emplace(touch);
  touch();
}

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path)
    throw std::runtime_error("socket path '" + path + "' has " + std::to_string(path.size()) +
                             " bytes, expected 1 to " + std::to_string(sizeof address.sun_path - 1));
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

Descriptor seqpacket_socket() {
  const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (fd < 0) throw_errno("unix socket");
  return Descriptor(fd);
}

// A peer that does not speak must not hold the other side up.
void limit_waiting(int fd, Millis limit) {
  const timeval time{limit.count() / 1000, (limit.count() % 1000) * 1000};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time);
}

// Regions by name.
class RegionTable {
 public:
  void put(const std::string& name, std::shared_ptr<SharedRegion> region) {
    const std::lock_guard lock(mutex_);
    regions_[name] = std::move(region);
  }
  void erase(const std::string& name) {
    const std::lock_guard lock(mutex_);
    regions_.erase(name);
  }
  std::shared_ptr<SharedRegion> find(const std::string& name) const {
    const std::lock_guard lock(mutex_);
    const auto found = regions_.find(name);
    return found == regions_.end() ? nullptr : found->second;
  }

 private:
  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<SharedRegion>> regions_;
};

RegionTable& inproc_table() {
  static RegionTable table;
  return table;
}

std::shared_ptr<SharedRegion> try_fetch(const std::string& socket_path, const std::string& name, Millis patience) {
  const Descriptor socket = seqpacket_socket();
  const sockaddr_un address = address_of(socket_path);
  limit_waiting(socket.get(), patience);
  if (connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return nullptr;
  if (send(socket.get(), name.data(), name.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(name.size())) return nullptr;
  char answer = kUnknown;
  Descriptor memory;
  if (receive_message(socket.get(), {&answer, 1}, memory) != 1 || answer != kHere || !memory.valid()) return nullptr;
  return SharedRegion::adopt(memory.release());
}

}  // namespace

// ---- SharedRegion -------------------------------------------------------------------------------------------------

SharedRegion::SharedRegion(int fd, std::byte* data, std::size_t size, bool sealed)
    : fd_(fd), data_(data), size_(size), sealed_(sealed) {}

std::shared_ptr<SharedRegion> SharedRegion::create(std::size_t bytes) {
  const std::string what = "shared memory of " + std::to_string(bytes) + " bytes";
  if (bytes == 0) throw std::runtime_error(what + ": expected at least 1");
  Descriptor fd(memfd_create("troupe", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (fd.get() < 0) throw_errno(what);
  if (ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) throw_errno(what);
  // Reserved here, so that a full memory is an error now and not a SIGBUS at the first touch.
  if (const int error = posix_fallocate(fd.get(), 0, static_cast<off_t>(bytes)); error != 0) {
    errno = error;
    throw_errno(what);
  }
  std::byte* data = map(fd.get(), bytes, PROT_READ | PROT_WRITE, what);
  touch_pages(data, bytes);
  return std::shared_ptr<SharedRegion>(new SharedRegion(fd.release(), data, bytes, false));
}

std::shared_ptr<SharedRegion> SharedRegion::adopt(int fd) {
  Descriptor owned(fd);
  struct stat info {};
  if (fstat(fd, &info) != 0) throw_errno("received memory");
  const int seals = fcntl(fd, F_GET_SEALS);
  if (seals < 0 || (seals & kImmutable) != kImmutable || info.st_size <= 0)
    throw std::runtime_error("received memory: expected a sealed memory file that is not empty");
  const auto bytes = static_cast<std::size_t>(info.st_size);
  std::byte* data = map(fd, bytes, PROT_READ, "received memory");
  return std::shared_ptr<SharedRegion>(new SharedRegion(owned.release(), data, bytes, true));
}

SharedRegion::~SharedRegion() {
  munmap(data_, size_);
  close(fd_);
}

std::span<std::byte> SharedRegion::writable() {
  if (sealed_) throw std::logic_error("the shared memory is sealed");
  return {data_, size_};
}

void SharedRegion::seal() {
  if (sealed_) return;
  if (mprotect(data_, size_, PROT_READ) != 0 || fcntl(fd_, F_ADD_SEALS, kImmutable) != 0)
    throw_errno("sealing shared memory");
  sealed_ = true;
}

// ---- RegionServer -------------------------------------------------------------------------------------------------

class RegionServer::Listener {
 public:
  explicit Listener(std::string path)
      : path_(std::move(path)), socket_(seqpacket_socket()), wake_(eventfd(0, EFD_CLOEXEC)) {
    const sockaddr_un address = address_of(path_);
    unlink(path_.c_str());
    fchmod(socket_.get(), 0600);  // Linux gives it to the file that bind makes
    if (bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
        listen(socket_.get(), 64) != 0)
      throw_errno(path_);
    thread_ = std::thread([this] { run(); });
  }
  ~Listener() {
    const uint64_t one = 1;
    [[maybe_unused]] const auto written = write(wake_.get(), &one, sizeof one);
    thread_.join();
    unlink(path_.c_str());
  }
  const std::string& path() const { return path_; }
  RegionTable table;

 private:
  void run() {
    for (;;) {
      pollfd fds[]{{socket_.get(), POLLIN, 0}, {wake_.get(), POLLIN, 0}};
      poll(fds, 2, -1);
      if (fds[1].revents != 0) return;
      const Descriptor reader(accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (reader.get() >= 0) serve(reader.get());
    }
  }
  void serve(int reader) {
    ucred credentials{};
    socklen_t size = sizeof credentials;
    if (getsockopt(reader, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0 || credentials.uid != geteuid()) return;
    limit_waiting(reader, Millis(1000));
    char name[kMaxNameBytes];
    const ssize_t length = recv(reader, name, sizeof name, 0);
    if (length <= 0) return;
    const auto region = table.find(std::string(name, static_cast<std::size_t>(length)));
    // A reader that left asks again.
    send_message(reader, {region ? &kHere : &kUnknown, 1}, region ? region->fd() : -1);
  }

  const std::string path_;
  const Descriptor socket_;
  const Descriptor wake_;
  std::thread thread_;
};

RegionServer::RegionServer(std::string socket_path) : listener_(std::make_unique<Listener>(std::move(socket_path))) {}
RegionServer::~RegionServer() = default;
const std::string& RegionServer::path() const {
  return listener_->path();
}
void RegionServer::withdraw(const std::string& name) {
  listener_->table.erase(name);
}

void RegionServer::publish(const std::string& name, std::shared_ptr<SharedRegion> region) {
  if (name.empty() || name.size() > kMaxNameBytes)
    throw std::invalid_argument("region name '" + name + "' is too long");
  region->seal();
  listener_->table.put(name, std::move(region));
}

std::shared_ptr<SharedRegion> fetch_region(const std::string& socket_path, const std::string& name, Millis deadline,
                                           const std::function<void()>& waiting) {
  const Instant until = std::chrono::steady_clock::now() + deadline;
  for (Millis pause(1);; pause = std::min(pause * 2, Millis(100))) {
    if (auto region = try_fetch(socket_path, name, std::clamp(deadline, Millis(1), kTryFor))) return region;
    waiting();
    if (std::chrono::steady_clock::now() + pause > until)
      throw std::runtime_error("no memory region '" + name + "' at " + socket_path + " within " +
                               std::to_string(deadline.count()) + " ms");
    std::this_thread::sleep_for(pause);
  }
}

void InprocRegions::publish(const std::string& name, std::shared_ptr<SharedRegion> region) {
  region->seal();
  inproc_table().put(name, std::move(region));
}
void InprocRegions::withdraw(const std::string& name) {
  inproc_table().erase(name);
}
std::shared_ptr<SharedRegion> InprocRegions::find(const std::string& name) {
  return inproc_table().find(name);
}

std::shared_ptr<SharedRegion> open_region(std::string_view location, Millis deadline,
                                          const std::function<void()>& waiting) {
  constexpr std::string_view kMemfd = "memfd:", kInproc = "inproc:";
  if (location.starts_with(kInproc)) {
    const std::string name(location.substr(kInproc.size()));
    if (auto region = InprocRegions::find(name)) return region;
    throw std::runtime_error("no memory region '" + name + "' in this process");
  }
  const std::size_t hash = location.rfind('#');
  if (!location.starts_with(kMemfd) || hash == std::string_view::npos)
    throw std::invalid_argument("memory location '" + std::string(location) +
                                "': expected memfd:SOCKET_PATH#NAME or inproc:NAME");
  return fetch_region(std::string(location.substr(kMemfd.size(), hash - kMemfd.size())),
                      std::string(location.substr(hash + 1)), deadline, waiting);
}

}  // namespace troupe
