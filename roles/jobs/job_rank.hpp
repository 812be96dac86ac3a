// Which of the processes of a job this is.
#pragma once

#include <string>

namespace troupe {

struct JobRank {
  int rank = 0;
  int size = 1;
  int on_host = 1;  // ranks on this host, which share its cores
  // Of rank 0: a host and, over tcp, the port that it listens on. "" when alone.
  std::string address = {};
  int port = 0;
  // What all ranks of a job know and nobody else. "": they meet in a private folder of their one host.
  std::string secret = {};
};

}  // namespace troupe
