// Runs the nodes of one host as processes and keeps them running: the policy (supervision.hpp) tied to real processes,
// real time, and a ROUTER socket where heartbeats arrive and `troupe status` asks (SupervisorFace).
// The child learns who it is from its environment: TROUPE_INCARNATION and TROUPE_EPOCH (decimal).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "actors/mailbox.hpp"
#include "actors/supervision.hpp"

namespace troupe {

struct NodeProcess {
  SupervisedNode node{};
  ProcessOptions process{};
};

struct SupervisorOptions {
  std::vector<NodeProcess> nodes{};  // in start order
  RestartLimit restarts{};
  StopTimes stop_times{};
  // The supervisor's own node ("supervisor"): endpoint that heartbeats go to, run, epoch, keys, and as peers every node
  // that can be told to stop.
  NodeOptions self{};
  std::function<Process(const ProcessOptions&)> spawn = Process::spawn;
  std::function<void(const RunStatus&)> on_status{};        // about four times a second, from run()'s thread
  std::function<void(const std::string& line)> on_event{};  // starts, ends, restarts, the final report; default: stderr
};

class Supervisor {
 public:
  explicit Supervisor(SupervisorOptions options);  // binds the endpoint; throws
  ~Supervisor();

  // Starts everything, returns when all have ended: 0 when the driving node finished cleanly or the run was stopped on
  // request and everyone ended cleanly; not 0 otherwise, after the report of the first cause. Children die with the
  // calling thread.
  int run();
  const std::string& cause() const;  // of the run's failure, on one line, after run(); "": it has not failed
  // Any thread, and from a signal handler (it sets a flag, nothing else). The second call kills at once. `reason` must
  // be a string literal.
  void request_stop(const char* reason) noexcept;

 private:
  class Loop;
  std::unique_ptr<Loop> loop_;
};

}  // namespace troupe
