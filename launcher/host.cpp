#include "launcher/host.hpp"

#include <sys/utsname.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>

#include "launcher/thread_plan.hpp"

namespace troupe {
namespace {

// "model name : Intel(R) ..." of the first processor.
std::string cpu_name() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);)
    if (const auto colon = line.find(": "); line.starts_with("model name") && colon != line.npos)
      return line.substr(colon + 2);
  return "unknown";
}

std::string memory_gib() {
  const double bytes = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGE_SIZE));
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f", bytes / (1 << 30));
  return text;
}

}  // namespace

std::map<std::string, std::string> host_environment() {
  utsname system{};
  uname(&system);
  return {{"host", system.nodename},
          {"system", std::string(system.sysname) + " " + system.release + " " + system.machine},
          {"cpu", cpu_name()},
          {"cores", std::to_string(host_cores())},
          {"memory_gib", memory_gib()},
          {"troupe", TROUPE_VERSION},
          {"built_with", "g++ " __VERSION__}};
}

}  // namespace troupe
