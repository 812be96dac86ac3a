// Whether a process runs. One that has ended and waits to be reaped does not.
#pragma once

#include <sys/types.h>

#include <fstream>
#include <string>

namespace troupe {

inline bool alive(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string stat;
  std::getline(file, stat);  // nothing when it goes away meanwhile
  const std::size_t name_end = stat.rfind(')');
  return name_end != stat.npos && name_end + 2 < stat.size() && stat[name_end + 2] != 'Z';
}

}  // namespace troupe
