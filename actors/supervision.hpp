// Who is started, watched, restarted and stopped when: the supervisor's policy as a pure state machine on the time it
// is given. Events go in, actions come out; no process, socket or clock here. Supervisor (supervisor.hpp) carries it
// out.
//
// - A node is started with incarnation 1 and then +1 at every start.
// - The lease of a node that never beat is that of the phase "load".
// - A lease runs out when a node's phase and progress have stood still for the phase's lease, or when no heartbeat has
//   come for the lease of ordinary phases (the process itself is stopped): it is named, gets SIGABRT
//   (a stack in its log), SIGKILL 2 s later, and is restarted.
// - A restart waits: at once the first time in the window, then 0.25 s, 0.5 s, 1 s, ... up to 5 s.
// - More than `limit` restarts of one node within the window, or the failure of a node that is not to be restarted,
// ends
//   the run: all others are stopped and the exit code is not zero.
// - The end of a node with kWrongSettings ends the run in the same way, at once: another start would end as this one.
// - The end of the driving node with exit code 0 is the end of the run: the others are stopped in reverse order.
// - Stopping: the Stop message to the driver first (it may need the others to finish), when it has ended to the others
//   in reverse order; SIGTERM after StopTimes::stop, SIGKILL after StopTimes::term more. The driver, which has a step
//   to finish, is waited for as long as it and all the others make progress: until one has stood still for
//   StopTimes::stop and the lease of its phase, or has died StopTimes::stop ago. A second request: SIGKILL at once.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "actors/clock.hpp"
#include "actors/process.hpp"
#include "protocol/messages.hpp"

namespace troupe {

// Exit code of a role whose settings make no sense (EX_CONFIG of sysexits.h).
inline constexpr int kWrongSettings = 78;

enum class OnFailure { kRestart, kStop };

// How long a phase may stand still.
struct Leases {
  std::map<std::string, Millis> by_phase{{"load", Millis(120'000)}, {"idle", Millis(5'000)}};
  Millis otherwise{30'000};
  Millis of(const std::string& phase) const;
};

struct RestartLimit {
  int limit = 5;  // restarts of one node
  Millis window{60'000};
};

struct SupervisedNode {
  std::string name{};
  OnFailure on_failure = OnFailure::kRestart;
  Leases leases{};
  bool drives = false;     // its clean end is the run's end
  bool heartbeats = true;  // false: a foreign program that is watched by its exit alone
};

struct StopTimes {
  Millis stop{20'000};  // from the Stop message (the driver: or the last progress) to SIGTERM
  Millis term{3'000};   // from SIGTERM to SIGKILL
};

// What the policy wants done.
struct StartNode {
  std::string node;
  uint64_t incarnation;
  uint64_t epoch;
};
struct TellStop {
  std::string node;
  std::string reason;
};
struct SignalNode {
  std::string node;
  int number;
};
struct Tell {
  std::string text;
};  // for people: the event log and the display
struct EndRun {
  int exit_code;
  std::string report;
};
using Action = std::variant<StartNode, TellStop, SignalNode, Tell, EndRun>;

class SupervisionPolicy {
 public:
  // Nodes in start order. `epoch` is the driver's first epoch; it rises by one at each of the driver's restarts.
  SupervisionPolicy(std::vector<SupervisedNode> nodes, RestartLimit restarts, StopTimes times, uint64_t epoch);

  // Events. Each returns what is to be done now, in order.
  std::vector<Action> start(Instant now);
  std::vector<Action> heartbeat(const RoleStatus& status, Instant now);
  std::vector<Action> exited(const std::string& node, const ExitStatus& status, const std::string& last_lines,
                             Instant now);
  std::vector<Action> stop(const std::string& reason, Instant now);  // the second call: at once
  std::vector<Action> tick(Instant now);

  uint64_t epoch() const { return epoch_; }
  const std::string& cause() const { return cause_; }  // of the run's failure, on one line; "": it has not failed
  std::string_view state() const;                      // "starting", "running", "stopping"
  std::vector<RoleStatus> nodes() const;
  std::map<std::string, uint64_t> restarts() const;

 private:
  enum class Life { kWaiting, kRunning, kAborting, kEnded };
  struct Node {
    SupervisedNode spec;
    Life life = Life::kWaiting;
    Instant due{};  // kWaiting: start; kAborting: SIGKILL
    Instant last_progress{};
    Instant last_heard{};  // the last heartbeat, with progress or without
    RoleStatus status;
    std::deque<Instant> recent_restarts;
    bool beaten = false;  // a heartbeat of this incarnation has come
    uint64_t restarts = 0;
    std::string failure;  // what its abort is for
    int stop_stage = 0;   // 0 none, 1 told, 2 SIGTERM, 3 SIGKILL
    Instant told{};       // to stop
    Instant tell_due{};   // stage 1: that it is still waited for
    Instant stop_due{};   // stage 2: SIGKILL
  };
  Node* find(const std::string& name);
  void start_due(Instant now, std::vector<Action>& out);
  void check_leases(Instant now, std::vector<Action>& out);
  void restart_or_end(Node& node, const ExitStatus& status, const std::string& last_lines, Instant now,
                      std::vector<Action>& out);
  void begin_stop(const std::string& reason, Instant now, std::vector<Action>& out);
  void advance_stop(Instant now, std::vector<Action>& out);
  Instant patience_ends(const Node& node) const;

  std::vector<Node> nodes_;
  RestartLimit limit_;
  StopTimes times_;
  uint64_t epoch_;
  Instant last_tick_{};
  bool stopping_ = false;
  bool ended_ = false;
  int exit_code_ = 0;
  std::string stop_reason_;
  std::string cause_;   // of the first failure
  std::string report_;  // the cause and its last lines, printed last
};

}  // namespace troupe
