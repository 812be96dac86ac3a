#include "actors/host_address.hpp"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <stdexcept>

#include "actors/descriptor.hpp"

namespace troupe {
namespace {

std::string text_of(const sockaddr_in& address) {
  std::array<char, INET_ADDRSTRLEN> text{};
  inet_ntop(AF_INET, &address.sin_addr, text.data(), text.size());
  return text.data();
}

}  // namespace

std::string address_of(const std::string& host) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_STREAM;
  if (const int error = getaddrinfo(host.c_str(), nullptr, &hints, &found); error != 0)
    throw std::runtime_error("host '" + host + "' has no IPv4 address: " + gai_strerror(error));
  sockaddr_in address{};
  std::memcpy(&address, found->ai_addr, sizeof address);
  freeaddrinfo(found);
  return text_of(address);
}

bool is_loopback(const std::string& address) {
  return address.starts_with("127.");
}

// A connected datagram socket sends nothing; the system only chooses its way.
std::string local_address_towards(const std::string& address) {
  sockaddr_in peer{}, own{};
  peer.sin_family = AF_INET;
  peer.sin_port = htons(9);  // any
  if (inet_pton(AF_INET, address.c_str(), &peer.sin_addr) != 1)
    throw std::runtime_error("'" + address + "' is no IPv4 address");
  const Descriptor socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  socklen_t size = sizeof own;
  if (connect(socket.get(), reinterpret_cast<const sockaddr*>(&peer), sizeof peer) != 0 ||
      getsockname(socket.get(), reinterpret_cast<sockaddr*>(&own), &size) != 0)
    throw std::runtime_error("no way to " + address + ": " + std::strerror(errno));
  return text_of(own);
}

}  // namespace troupe
