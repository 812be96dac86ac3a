// What a report says of the machine it was made on.
#pragma once

#include <map>
#include <string>

namespace troupe {

// host, system, cpu, cores, memory_gib, troupe (version), built_with.
std::map<std::string, std::string> host_environment();

}  // namespace troupe
