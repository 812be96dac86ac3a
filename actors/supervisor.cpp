#include "actors/supervisor.hpp"

#include <atomic>
#include <cstdio>
#include <filesystem>
#include <map>
#include <stdexcept>
#include <thread>

#include "actors/runner.hpp"

namespace troupe {
namespace {

constexpr Millis kLookEvery{20};
constexpr Millis kStatusEvery{250};
constexpr int kReportLines = 15;

SupervisionPolicy policy_of(const SupervisorOptions& options) {
  std::vector<SupervisedNode> nodes;
  for (const NodeProcess& entry : options.nodes) nodes.push_back(entry.node);
  return {std::move(nodes), options.restarts, options.stop_times, options.self.epoch};
}

}  // namespace

class Supervisor::Loop {
 public:
  using Face = SupervisorFace;

  explicit Loop(SupervisorOptions options)
      : options_(std::move(options)), policy_(policy_of(options_)), mailbox_(options_.self) {
    if (!options_.on_event)
      options_.on_event = [](const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); };
  }

  int run();

  // Served to the nodes and to whoever asks how the run is doing.
  Ack handle(const Heartbeat& m) {
    perform(policy_.heartbeat(m.status, now()));
    return {};
  }
  RunStatus handle(const AskRun&) { return status(); }
  const std::string& cause() const { return policy_.cause(); }

  std::atomic<const char*> stop_reason{nullptr};
  std::atomic<int> stop_requests{0};

 private:
  static Instant now() { return std::chrono::steady_clock::now(); }
  RunStatus status() const {
    return {options_.self.run, std::string(policy_.state()), policy_.nodes(), policy_.restarts()};
  }
  void perform(const std::vector<Action>& actions) {
    for (const Action& action : actions) std::visit([this](const auto& a) { carry_out(a); }, action);
  }
  void carry_out(const StartNode& action);
  void carry_out(const TellStop& action);
  void carry_out(const SignalNode& action);
  void carry_out(const Tell& action) { options_.on_event(action.text); }
  void carry_out(const EndRun& action);
  void look_after_processes();
  void heed_stop_requests();
  const NodeProcess& entry(const std::string& node) const;

  SupervisorOptions options_;
  SupervisionPolicy policy_;
  SocketMailbox mailbox_;
  std::map<std::string, Process> processes_;
  std::map<std::string, std::uintmax_t> log_starts_;  // node -> what its log held when it was started
  std::map<std::string, std::string> failed_starts_;  // node -> why; told to the policy as an exit
  int stops_heeded_ = 0;
  bool stop_message_heeded_ = false;
  std::optional<int> exit_code_;
};

const NodeProcess& Supervisor::Loop::entry(const std::string& node) const {
  for (const NodeProcess& candidate : options_.nodes)
    if (candidate.node.name == node) return candidate;
  throw std::logic_error("no node '" + node + "'");
}

void Supervisor::Loop::carry_out(const StartNode& action) {
  ProcessOptions process = entry(action.node).process;
  std::error_code none_yet;
  const auto logged = std::filesystem::file_size(process.log_path, none_yet);
  log_starts_[action.node] = none_yet ? 0 : logged;
  process.env["TROUPE_INCARNATION"] = std::to_string(action.incarnation);
  process.env["TROUPE_EPOCH"] = std::to_string(action.epoch);
  try {
    processes_.insert_or_assign(action.node, options_.spawn(process));
  } catch (const std::runtime_error& error) {
    failed_starts_[action.node] = error.what();
    return;
  }
  options_.on_event("started " + action.node + ", incarnation " + std::to_string(action.incarnation) + ", pid " +
                    std::to_string(processes_.at(action.node).pid()));
}

void Supervisor::Loop::carry_out(const TellStop& action) {
  if (!options_.self.peers.contains(action.node)) return;  // SIGTERM will tell it
  mailbox_.ask(action.node, Stop::kName, encode(Stop{action.reason}), {.deadline = options_.stop_times.stop});
}

void Supervisor::Loop::carry_out(const SignalNode& action) {
  const auto found = processes_.find(action.node);
  if (found != processes_.end()) found->second.signal(action.number);
}

void Supervisor::Loop::carry_out(const EndRun& action) {
  exit_code_ = action.exit_code;
  if (!action.report.empty()) options_.on_event(action.report);
}

void Supervisor::Loop::look_after_processes() {
  for (const auto& [node, why] : std::exchange(failed_starts_, {}))
    perform(policy_.exited(node, ExitStatus{127, 0}, why, now()));
  for (auto at = processes_.begin(); at != processes_.end();) {
    const auto status = at->second.poll();
    if (!status) {
      ++at;
      continue;
    }
    const std::string node = at->first;
    at = processes_.erase(at);
    perform(
        policy_.exited(node, *status, tail(entry(node).process.log_path, kReportLines, log_starts_.at(node)), now()));
    at = processes_.begin();  // a restart may have changed the map
  }
}

void Supervisor::Loop::heed_stop_requests() {
  for (; stops_heeded_ < stop_requests; ++stops_heeded_) perform(policy_.stop(stop_reason.load(), now()));
  if (mailbox_.stopping() && !std::exchange(stop_message_heeded_, true))
    perform(policy_.stop(mailbox_.stop_reason(), now()));
}

int Supervisor::Loop::run() {
  perform(policy_.start(now()));
  Instant next_status = now();
  while (!exit_code_) {
    // Heartbeats first: what has arrived must count before a lease is judged.
    while (const auto request = mailbox_.next(now())) dispatch(*this, mailbox_, *request);
    look_after_processes();
    heed_stop_requests();
    perform(policy_.tick(now()));
    mailbox_.beat("watch");
    if (options_.on_status && now() >= next_status) {
      next_status = now() + kStatusEvery;
      options_.on_status(status());
    }
    if (exit_code_) break;
    if (mailbox_.stopping()) {
      std::this_thread::sleep_for(kLookEvery);
    } else if (const auto request = mailbox_.next(now() + kLookEvery)) {
      dispatch(*this, mailbox_, *request);
    }
  }
  if (options_.on_status) options_.on_status(status());
  return *exit_code_;
}

Supervisor::Supervisor(SupervisorOptions options) : loop_(std::make_unique<Loop>(std::move(options))) {}
Supervisor::~Supervisor() = default;
int Supervisor::run() {
  return loop_->run();
}
const std::string& Supervisor::cause() const {
  return loop_->cause();
}
void Supervisor::request_stop(const char* reason) noexcept {
  loop_->stop_reason = reason;
  ++loop_->stop_requests;
}

}  // namespace troupe
