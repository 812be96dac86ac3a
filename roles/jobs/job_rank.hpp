// Which of the processes of a job this is. All of them are on one host.
#pragma once

#include <string>

namespace troupe {

struct JobRank {
  int rank = 0;
  int size = 1;
  std::string address = {};  // of rank 0; "" when alone
  int port = 0;
};

}  // namespace troupe
