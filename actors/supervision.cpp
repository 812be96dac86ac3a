#include "actors/supervision.hpp"

#include <algorithm>
#include <csignal>
#include <iomanip>
#include <sstream>

namespace troupe {
namespace {

constexpr Millis kAbortPatience{2'000};  // from SIGABRT to SIGKILL
constexpr Millis kBackOffCap{5'000};
constexpr Millis kTellEvery{10'000};
constexpr Millis kStalled{2'000};  // ticks further apart: it was the supervisor that stood still

Millis back_off(std::size_t restarts_in_window) {
  if (restarts_in_window == 0) return Millis(0);
  return std::min(kBackOffCap, Millis(250) * (1 << std::min<std::size_t>(restarts_in_window - 1, 10)));
}

std::string seconds(Millis time) {
  std::ostringstream text;
  text << std::setprecision(3) << static_cast<double>(time.count()) / 1000.0 << " s";
  return text.str();
}

// Of lines that say the same one after the other, the first.
std::string indented(const std::string& lines) {
  std::string text, before;
  std::istringstream in(lines);
  for (std::string line; std::getline(in, line); before = line)
    if (text.empty() || line != before) text += "\n    " + line;
  return text;
}

// " (what it said last)". A signal came from elsewhere: what was said before does not explain it.
std::string last_words(const ExitStatus& status, const std::string& lines) {
  const std::string words = lines.substr(lines.rfind('\n') + 1);
  return status.signal != 0 || words.empty() ? "" : " (" + words + ")";
}

}  // namespace

Millis Leases::of(const std::string& phase) const {
  const auto found = by_phase.find(phase);
  return found == by_phase.end() ? otherwise : found->second;
}

SupervisionPolicy::SupervisionPolicy(std::vector<SupervisedNode> nodes, RestartLimit restarts, StopTimes times,
                                     uint64_t epoch)
    : limit_(restarts), times_(times), epoch_(epoch) {
  for (SupervisedNode& spec : nodes) {
    nodes_.emplace_back();
    nodes_.back().spec = std::move(spec);
    nodes_.back().status.node = nodes_.back().spec.name;
  }
}

SupervisionPolicy::Node* SupervisionPolicy::find(const std::string& name) {
  const auto found = std::find_if(nodes_.begin(), nodes_.end(), [&](const Node& n) { return n.spec.name == name; });
  return found == nodes_.end() ? nullptr : &*found;
}

// ---- events -------------------------------------------------------------------------------------------------------

std::vector<Action> SupervisionPolicy::start(Instant now) {
  for (Node& node : nodes_) node.due = now;
  last_tick_ = now;
  return tick(now);
}

std::vector<Action> SupervisionPolicy::heartbeat(const RoleStatus& status, Instant now) {
  Node* node = find(status.node);
  if (!node || node->status.incarnation != status.incarnation || node->life == Life::kEnded) return {};
  node->beaten = true;
  node->last_heard = now;
  if (status.progress != node->status.progress || status.phase != node->status.phase) node->last_progress = now;
  node->status = status;
  return {};
}

std::vector<Action> SupervisionPolicy::exited(const std::string& name, const ExitStatus& status,
                                              const std::string& last_lines, Instant now) {
  std::vector<Action> out;
  Node* node = find(name);
  if (!node || (node->life != Life::kRunning && node->life != Life::kAborting)) return out;
  node->life = Life::kEnded;
  node->last_progress = now;
  node->status.phase = "ended";
  if (stopping_) {
    out.push_back(Tell{name + " has ended: " + status.text()});
    if (node->spec.drives && !status.clean()) exit_code_ = std::max(exit_code_, 1);
    advance_stop(now, out);
  } else if (node->spec.drives && status.clean()) {
    out.push_back(Tell{name + " is done"});
    begin_stop("the run is done", now, out);
  } else {
    restart_or_end(*node, status, last_lines, now, out);
  }
  return out;
}

std::vector<Action> SupervisionPolicy::stop(const std::string& reason, Instant now) {
  std::vector<Action> out;
  if (!stopping_) {
    begin_stop(reason, now, out);
    return out;
  }
  out.push_back(Tell{"stopping at once"});
  for (Node& node : nodes_) {
    if (node.life != Life::kRunning && node.life != Life::kAborting) continue;
    node.stop_stage = 3;
    out.push_back(SignalNode{node.spec.name, SIGKILL});
  }
  return out;
}

std::vector<Action> SupervisionPolicy::tick(Instant now) {
  std::vector<Action> out;
  // Whoever stopped this process (a suspended machine, a debugger) stopped the hearing, not the nodes' progress.
  if (now - last_tick_ > kStalled)
    for (Node& node : nodes_) {
      node.last_progress += now - last_tick_;
      node.last_heard += now - last_tick_;
    }
  last_tick_ = now;
  if (!stopping_) start_due(now, out);
  check_leases(now, out);
  if (stopping_) advance_stop(now, out);
  return out;
}

// ---- starting and watching ------------------------------------------------------------------------------------------

void SupervisionPolicy::start_due(Instant now, std::vector<Action>& out) {
  for (Node& node : nodes_) {
    if (node.life != Life::kWaiting || node.due > now) continue;
    const uint64_t incarnation = node.status.incarnation + 1;
    if (node.spec.drives && incarnation > 1) ++epoch_;
    node.life = Life::kRunning;
    node.beaten = false;
    node.last_progress = now;
    node.failure.clear();
    node.status = RoleStatus{node.spec.name, incarnation, "load", 0, "", 0};
    out.push_back(StartNode{node.spec.name, incarnation, epoch_});
  }
}

void SupervisionPolicy::check_leases(Instant now, std::vector<Action>& out) {
  for (Node& node : nodes_) {
    if (node.life == Life::kAborting && node.due <= now) {
      node.due = Instant::max();
      out.push_back(SignalNode{node.spec.name, SIGKILL});
    }
    if (node.life != Life::kRunning || !node.spec.heartbeats || stopping_) continue;
    const Millis lease = node.spec.leases.of(node.status.phase);
    // Heartbeats come from a thread of their own whatever the phase: their silence is a stopped process.
    const bool silent = node.beaten && now - node.last_heard > node.spec.leases.otherwise;
    if (!silent && now - node.last_progress <= lease) continue;
    node.failure = silent ? "no heartbeat for " + seconds(node.spec.leases.otherwise)
                          : "no progress in phase '" + node.status.phase + "' for " + seconds(lease) +
                                (node.status.detail.empty() ? "" : " (" + node.status.detail + ")");
    node.life = Life::kAborting;
    node.due = now + kAbortPatience;
    out.push_back(Tell{node.spec.name + ": " + node.failure + "; it is aborted"});
    out.push_back(SignalNode{node.spec.name, SIGABRT});
  }
}

void SupervisionPolicy::restart_or_end(Node& node, const ExitStatus& status, const std::string& last_lines, Instant now,
                                       std::vector<Action>& out) {
  auto& recent = node.recent_restarts;
  while (!recent.empty() && now - recent.front() > limit_.window) recent.pop_front();
  const bool over = recent.size() >= static_cast<std::size_t>(limit_.limit);
  const bool wrong = status.signal == 0 && status.code == kWrongSettings;
  const std::string how = wrong                  ? "its settings are wrong"
                          : node.failure.empty() ? status.text()
                                                 : node.failure + ", " + status.text();
  const std::string cause = node.spec.name + ": " + how;
  const std::string words = last_words(status, last_lines);
  if (wrong || node.spec.on_failure == OnFailure::kStop || over) {
    std::string restarts;
    if (!wrong && node.spec.on_failure == OnFailure::kRestart)
      restarts =
          "; restarted " + std::to_string(recent.size()) + " times within " + seconds(limit_.window) + ", no more";
    cause_ = cause + words + restarts;
    report_ = "the run has failed: " + cause + restarts;
    if (!last_lines.empty()) report_ += "\n  its last lines:" + indented(last_lines);
    exit_code_ = 1;
    out.push_back(Tell{cause + "; the run stops"});
    return begin_stop(node.spec.name + " has failed", now, out);
  }
  const Millis pause = back_off(recent.size());
  recent.push_back(now);
  ++node.restarts;
  node.life = Life::kWaiting;
  node.status.phase = "restart";
  node.due = now + pause;
  out.push_back(Tell{cause + words + "; restart " + std::to_string(recent.size()) + " of " +
                     std::to_string(limit_.limit) + " in " + seconds(limit_.window) +
                     (pause > Millis(0) ? ", after " + seconds(pause) : "")});
  start_due(now, out);
}

// ---- stopping -------------------------------------------------------------------------------------------------------

void SupervisionPolicy::begin_stop(const std::string& reason, Instant now, std::vector<Action>& out) {
  stopping_ = true;
  stop_reason_ = reason;
  for (Node& node : nodes_)
    if (node.life == Life::kWaiting) {
      node.life = Life::kEnded;
      node.last_progress = now;
    }
  out.push_back(Tell{"stopping: " + reason});
  advance_stop(now, out);
}

// The driver goes first and alone: to end well it may need the others. Then everyone else, last started first.
void SupervisionPolicy::advance_stop(Instant now, std::vector<Action>& out) {
  const auto alive = [](const Node& n) { return n.life == Life::kRunning || n.life == Life::kAborting; };
  const bool driver_alive =
      std::any_of(nodes_.begin(), nodes_.end(), [&](const Node& n) { return n.spec.drives && alive(n); });
  bool anyone = false;
  for (auto node = nodes_.rbegin(); node != nodes_.rend(); ++node) {
    if (!alive(*node)) continue;
    anyone = true;
    if (node->stop_stage == 0 && (node->spec.drives || !driver_alive)) {
      node->stop_stage = 1;
      node->told = now;
      node->tell_due = now + kTellEvery;
      out.push_back(TellStop{node->spec.name, stop_reason_});
      continue;
    }
    const bool first = node->stop_stage == 1;
    if ((first && patience_ends(*node) <= now) || (node->stop_stage == 2 && node->stop_due <= now)) {
      ++node->stop_stage;
      node->stop_due = now + times_.term;
      out.push_back(Tell{node->spec.name + " did not end in time: " + (first ? "SIGTERM" : "SIGKILL")});
      out.push_back(SignalNode{node->spec.name, first ? SIGTERM : SIGKILL});
    } else if (first && node->tell_due <= now) {
      node->tell_due = now + kTellEvery;
      out.push_back(Tell{node->spec.name + " has been stopping for " +
                         seconds(std::chrono::round<std::chrono::seconds>(now - node->told)) + ": " +
                         node->status.phase + (node->status.detail.empty() ? "" : ", " + node->status.detail)});
    }
  }
  if (!anyone && !std::exchange(ended_, true)) out.push_back(EndRun{exit_code_, report_});
}

// When a node that was told to stop is waited for no longer, if all goes on as it does now. Only the driver has
// something to finish. It beats while it waits for the others: their standstill is its own.
Instant SupervisionPolicy::patience_ends(const Node& node) const {
  const auto standstill = [&](const Node& n) {
    if (n.life == Life::kEnded) return n.last_progress + times_.stop;
    return n.last_progress + std::max(times_.stop, n.spec.leases.of(n.status.phase));
  };
  const Instant least = node.told + times_.stop;
  if (!node.spec.drives || !node.spec.heartbeats || !node.beaten) return least;
  Instant ends = standstill(node);
  for (const Node& other : nodes_)
    if (other.spec.heartbeats) ends = std::min(ends, standstill(other));
  return std::max(least, ends);
}

// ---- what is known --------------------------------------------------------------------------------------------------

std::string_view SupervisionPolicy::state() const {
  if (stopping_) return "stopping";
  const bool all_up =
      std::all_of(nodes_.begin(), nodes_.end(), [](const Node& n) { return n.beaten || !n.spec.heartbeats; });
  return all_up ? "running" : "starting";
}

std::vector<RoleStatus> SupervisionPolicy::nodes() const {
  std::vector<RoleStatus> all;
  for (const Node& node : nodes_) all.push_back(node.status);
  return all;
}

std::map<std::string, uint64_t> SupervisionPolicy::restarts() const {
  std::map<std::string, uint64_t> all;
  for (const Node& node : nodes_) all[node.spec.name] = node.restarts;
  return all;
}

}  // namespace troupe
