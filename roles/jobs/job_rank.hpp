// Which of the processes of a job this is.
#pragma once

#include <stdexcept>
#include <string>

namespace troupe {

struct JobRank {
  int rank = 0;
  int size = 1;
  int on_host = 1;  // ranks on this host, which share its cores and its GPUs
  int local = 0;    // which of these
  // Of rank 0: a host and, over tcp, the port that it listens on. "" when alone.
  std::string address = {};
  int port = 0;
  // What all ranks of a job know and nobody else. "": they meet in a private folder of their one host.
  std::string secret = {};
};

// What the others of a group throw when one rank fails: the cause is that one's to tell.
struct LostRank : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace troupe
