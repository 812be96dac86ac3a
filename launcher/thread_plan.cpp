#include "launcher/thread_plan.hpp"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <thread>

namespace troupe {
namespace {

// /sys/fs/cgroup/cpu.max: "QUOTA PERIOD" in microseconds, or "max PERIOD". 0: no limit known.
int cgroup_cores() {
  std::ifstream in("/sys/fs/cgroup/cpu.max");
  double quota = 0, period = 0;
  return in >> quota >> period && period > 0 ? static_cast<int>(quota / period) : 0;
}

}  // namespace

int host_cores() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  int cores = sched_getaffinity(0, sizeof(allowed), &allowed) == 0
                  ? CPU_COUNT(&allowed)
                  : static_cast<int>(std::thread::hardware_concurrency());
  if (const int quota = cgroup_cores(); quota > 0) cores = std::min(cores, quota);
  return std::max(cores, 1);
}

void plan_threads(Topology& topology, int cores) {
  for (NodeSection& node : topology.nodes) {
    if (node.external || node.threads != 0) continue;
    const std::string& role = role_of(node);
    const bool computes = role != "conductor" && role != "reward";
    node.threads = computes ? std::max<int64_t>(1, cores / node.count) : 1;
  }
}

bool nodes_take_turns(const Topology& topology) {
  return std::ranges::none_of(topology.nodes, [](const NodeSection& node) {
    return role_of(node) == "conductor" && node.config.is_object() && node.config.value("max_staleness", Json(0)) != 0;
  });
}

}  // namespace troupe
