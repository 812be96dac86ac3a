// Where each process of a run listens, and the keys it speaks with.
#pragma once

#include "roles/run_file.hpp"
#include "roles/topology.hpp"

namespace troupe {

// Fills run.endpoints for every instance and "supervisor" by transport.control: ipc sockets in run.sockets, or free tcp
// ports of transport.bind, then with fresh key pairs (public halves to run.public_keys, secret halves to files of mode
// 0600 in run.sockets). An external node's own endpoint is kept. Throws std::runtime_error.
void assign_endpoints(const Topology& topology, RunFile& run);

}  // namespace troupe
