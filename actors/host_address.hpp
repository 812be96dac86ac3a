// Addresses of hosts, IPv4.
#pragma once

#include <string>

namespace troupe {

// "127.0.0.1" of "localhost": the address of a host's name, looked up. Throws std::runtime_error naming the host.
std::string address_of(const std::string& host);

bool is_loopback(const std::string& address);  // 127.x.x.x

// The address of this host that packets to `address` leave from: what its peers there reach it by. Throws
// std::runtime_error when there is no way there.
std::string local_address_towards(const std::string& address);

}  // namespace troupe
