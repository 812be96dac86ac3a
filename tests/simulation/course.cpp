#include "course.hpp"

#include <algorithm>
#include <csignal>
#include <mutex>

#include "cast.hpp"
#include "core/io/checkpoint.hpp"
#include "roles/run_journal.hpp"

namespace troupe::simulation {
namespace {

constexpr std::chrono::seconds kPatience{120};
const std::filesystem::path kRunFolder = "/runs/simulated";

Json node(const char* name, int64_t count, Json config = Json::object()) {
  return {{"name", name}, {"count", count}, {"threads", 1}, {"config", std::move(config)}};
}

Topology topology_of(const Workload& w) {
  const Json json = {{"run", {{"seed", 5}, {"name", "simulated"}, {"deterministic", w.deterministic}}},
                     {"model", "none"},
                     {"algorithm", {{"type", "grpo"}, {"kl_beta", 0.04}}},
                     {"prompts", {{"file", "none"}}},
                     {"sampling", {{"max_new_tokens", 3}}},
                     {"nodes",
                      {node("actor", w.actors), node("learner", 1), node("reference", 1), node("reward", 1),
                       node("conductor", 1,
                            {{"steps", w.steps},
                             {"group_size", 2},
                             {"prompts_per_update", 2},
                             {"max_staleness", w.max_staleness},
                             {"checkpoint_every", w.checkpoint_every},
                             {"export_model", false}})}},
                     {"transport", {{"ask_timeout_s", 600}}}};
  return topology_from(json, JsonPath("simulated", ""));
}

struct Script {
  Topology topology;
  ConductorConfig conductor;
};

// Parsed once for each workload; worlds of several threads share it.
const Script& script_of(const Workload& workload) {
  static std::mutex mutex;
  static std::map<Workload, Script> all;
  const std::lock_guard lock(mutex);
  if (const auto found = all.find(workload); found != all.end()) return found->second;
  Script script{topology_of(workload), {}};
  script.conductor =
      from_json<ConductorConfig>(node_of(script.topology, "conductor/0").config, JsonPath("simulated", ""));
  return all.emplace(workload, std::move(script)).first->second;
}

// One course of one plan.
class Course {
 public:
  explicit Course(const Plan& plan)
      : plan_(plan),
        script_(script_of(plan.workload)),
        topology_(script_.topology),
        world_(plan.seed, plan.conditions) {
    world_.trace = plan.trace;
    world_.disk.create_dirs(kRunFolder);
    world_.disk.sync_dir(kRunFolder);
    hear_of_exits();
  }

  Outcome play() {
    for (int i = 0; i < plan_.faults; ++i) plan_fault();
    start_supervisor();
    while (!ended_ && observed_.violations.empty()) {
      const Instant end = last_fault_ + kPatience;
      if (world_.advance(end)) continue;
      observed_.violations.push_back("the run did not end within " + std::to_string(kPatience.count()) +
                                     " s after its last fault");
    }
    if (observed_.violations.empty() && exit_code_ != 0) observed_.violations.push_back("the run failed: " + report_);
    outcome_.virtual_seconds = std::chrono::duration<double>(world_.now() - begin_).count();
    kill_all();
    if (observed_.violations.empty()) check_remains();
    outcome_.violations = observed_.violations;
    outcome_.letters = world_.letters;
    outcome_.lost = world_.lost_letters;
    return outcome_;
  }

 private:
  struct Exit {
    std::string node;
    std::optional<std::string> error;
  };

  // Whose end the supervisor is told of.
  void hear_of_exits() {
    world_.on_exit([this](const std::string& node, const Process& process) {
      if (node != "supervisor") exits_.push_back({node, process.error()});
    });
  }
  void kill_all() {
    world_.on_exit(nullptr);
    world_.kill_all();
  }
  void start_supervisor();
  void supervise(Process& self);
  void carry_out(Process& self, const Action& action);
  void start_node(const StartNode& action);
  NodeOptions options_of(const std::string& node, uint64_t incarnation, uint64_t epoch) const;
  void plan_fault();
  void check_remains();
  std::string any_node() { return nodes_[world_.below(nodes_.size())]; }

  const Plan& plan_;
  const Script& script_;
  const Topology& topology_;
  World world_;
  Observed observed_;
  Outcome outcome_;
  const Instant begin_ = world_.now();
  Instant last_fault_ = begin_;
  const std::vector<std::string> nodes_ = [this] {
    std::vector<std::string> all;
    for (const NodeSection& section : topology_.nodes)
      for (std::string& name : instances_of(section)) all.push_back(std::move(name));
    return all;
  }();
  std::optional<SupervisionPolicy> policy_;
  std::deque<Exit> exits_;
  uint64_t epoch_ = 0;
  bool ended_ = false;
  int exit_code_ = 0;
  std::string report_;
};

NodeOptions Course::options_of(const std::string& node, uint64_t incarnation, uint64_t epoch) const {
  NodeOptions options{.node = node, .incarnation = incarnation, .run = "simulated", .epoch = epoch};
  options.drives = node == "conductor/0";
  for (const std::string& peer : nodes_) options.peers[peer] = {};
  options.peers["supervisor"] = {};
  if (node != "supervisor") options.supervisor = "supervisor";
  const bool trace = plan_.trace;
  options.log = [trace](const std::string& line) {
    if (trace) std::printf("           %s\n", line.c_str());
  };
  return options;
}

// ---- the supervisor: the loop of actors/supervisor.cpp on simulated processes
// ----------------------------------------

void Course::start_supervisor() {
  std::vector<SupervisedNode> nodes;
  for (const std::string& name : nodes_)
    nodes.push_back(
        {.name = name,
         .leases = {.by_phase = {{"load", Millis(5000)}, {"idle", Millis(2000)}}, .otherwise = Millis(3000)},
         .drives = name == "conductor/0"});
  exits_.clear();
  ++epoch_;
  policy_.emplace(std::move(nodes), RestartLimit{.limit = 1000}, StopTimes{.stop = Millis(5000), .term = Millis(500)},
                  epoch_);
  world_.spawn(options_of("supervisor", epoch_, epoch_), [this](Process& self) { supervise(self); });
}

void Course::supervise(Process& self) {
  struct Desk {
    using Face = SupervisorFace;
    Course& course;
    Process& self;
    Ack handle(const Heartbeat& m) {
      for (const Action& action : course.policy_->heartbeat(m.status, self.now())) course.carry_out(self, action);
      return {};
    }
    RunStatus handle(const AskRun&) { return {}; }
  };
  Desk desk{*this, self};
  const auto perform = [&](const std::vector<Action>& actions) {
    for (const Action& action : actions) carry_out(self, action);
  };
  perform(policy_->start(self.now()));
  while (!ended_) {
    while (const auto request = self.next(self.now())) dispatch(desk, self, *request);
    while (!exits_.empty()) {
      const Exit exit = exits_.front();
      exits_.pop_front();
      perform(policy_->exited(exit.node, exit.error ? ExitStatus{1, 0} : ExitStatus{0, 0}, exit.error.value_or(""),
                              self.now()));
    }
    perform(policy_->tick(self.now()));
    if (ended_) break;
    if (const auto request = self.next(self.now() + Millis(20))) dispatch(desk, self, *request);
  }
}

void Course::carry_out(Process& self, const Action& action) {
  if (const auto* start = std::get_if<StartNode>(&action)) {
    epoch_ = std::max(epoch_, start->epoch);
    start_node(*start);
  } else if (const auto* tell = std::get_if<TellStop>(&action)) {
    self.ask(tell->node, Stop::kName, encode(Stop{tell->reason}), {.deadline = Millis(5000)});
  } else if (const auto* signal = std::get_if<SignalNode>(&action)) {
    // A signal takes effect outside of this fiber; SIGABRT on a stopped process waits.
    world_.after(Millis(0), [this, node = signal->node, number = signal->number] {
      Process* const process = world_.find(node);
      if (process && (number == SIGKILL || !process->stopped())) world_.kill(node);
    });
  } else if (const auto* text = std::get_if<Tell>(&action)) {
    world_.tell("supervisor: " + text->text);
  } else if (const auto* end = std::get_if<EndRun>(&action)) {
    ended_ = true;
    exit_code_ = end->exit_code;
    report_ = end->report;
  }
}

void Course::start_node(const StartNode& action) {
  if (action.incarnation > 1) ++outcome_.restarts;
  const std::string role = action.node.substr(0, action.node.find('/'));
  world_.spawn(options_of(action.node, action.incarnation, action.epoch), [this, role](Process& self) {
    Context context(self);
    RoleSetting setting{.topology = topology_, .run_folder = kRunFolder, .instance = self.options().node};
    self.sleep(Millis(1 + world_.below(50)));
    if (role == "conductor") {
      direct(world_, setting, script_.conductor, context, observed_);
    } else if (role == "learner") {
      SimulatedLearner learner(world_, self, setting, observed_);
      serve(learner, context);
    } else if (role == "actor") {
      SimulatedActor actor(world_, self);
      serve(actor, context);
    } else if (role == "reference") {
      SimulatedReference reference(self);
      serve(reference, context);
    } else {
      SimulatedReward reward(self);
      serve(reward, context);
    }
  });
}

// ---- faults -------------------------------------------------------------------------------------------------------

// At a random time of the first seconds of the run: most of them hit it while it works.
void Course::plan_fault() {
  const Instant when = begin_ + Millis(world_.below(4000));
  const uint64_t kind = world_.below(10);
  const auto lasts = [&](Millis time) { last_fault_ = std::max(last_fault_, when + time); };
  lasts(Millis(0));
  if (kind < 4) {
    world_.at(when, [this] { ++outcome_.kills, world_.kill(any_node()); });
  } else if (kind == 4) {
    const Millis time(100 + world_.below(8000));
    lasts(time);
    world_.at(when, [this, time] {
      const std::string node = any_node();
      ++outcome_.stops;
      world_.stop(node);
      world_.after(time, [this, node] { world_.go_on(node); });
    });
  } else if (kind == 5) {
    world_.at(when, [this] {
      const std::string node = any_node();
      if (Process* const process = world_.find(node)) ++outcome_.hangs, world_.tell("hang " + node), process->hang();
    });
  } else if (kind < 8) {
    const Millis time(100 + world_.below(5000));
    lasts(time);
    world_.at(when, [this, time] {
      const std::string a = any_node(), b = world_.below(4) == 0 ? "supervisor" : any_node();
      ++outcome_.cuts;
      world_.tell("cut " + a + " " + b);
      world_.below(3) == 0 ? world_.cut_one_way(a, b) : world_.cut(a, b);
      world_.after(time, [this] { world_.tell("heal"), world_.heal(); });
    });
  } else {
    const bool power = world_.below(2) == 0;
    world_.at(when, [this, power] {
      if (ended_) return;
      world_.tell(power ? "power cut" : "the launcher dies");
      ++outcome_.power_cuts;
      kill_all();
      if (power) world_.disk.cut_power();
      if (power && observed_.applied > 0) {
        const RunJournal journal(world_.disk, kRunFolder / "journal");
        if (journal.last_step() < observed_.applied)
          observed_.violations.push_back("step " + std::to_string(observed_.applied) +
                                         " was applied, after the power cut the journal ends at step " +
                                         std::to_string(journal.last_step()));
      }
      hear_of_exits();
      world_.after(Millis(100), [this] {
        if (!world_.find("supervisor")) start_supervisor();
      });
    });
  }
}

// ---- what must hold in the end --------------------------------------------------------------------------------------

void Course::check_remains() {
  const auto violation = [&](const std::string& what) { observed_.violations.push_back(what); };
  world_.disk.cut_power();
  const auto steps = static_cast<uint64_t>(plan_.workload.steps);
  const RunJournal journal(world_.disk, kRunFolder / "journal");
  if (journal.last_step() != steps)
    return violation("the journal ends at step " + std::to_string(journal.last_step()) + " of " +
                     std::to_string(steps));
  std::map<std::pair<uint64_t, uint64_t>, int> seen;
  for (uint64_t step = 1; step <= steps; ++step) {
    const Experience batch = journal.read(step);
    for (std::size_t i = 0; i < batch.draws.size(); ++i) ++seen[{batch.draws[i], batch.samples[i]}];
    for (const int32_t version : batch.versions.as<int32_t>())
      if (static_cast<int64_t>(step) - 1 - version > plan_.workload.max_staleness)
        violation("step " + std::to_string(step) + " holds a token of version " + std::to_string(version));
  }
  if (seen.size() != steps * 4)
    violation(std::to_string(seen.size()) + " samples, expected " + std::to_string(steps * 4));
  for (const auto& [sample, times] : seen)
    if (times != 1)
      violation("draw " + std::to_string(sample.first) + " sample " + std::to_string(sample.second) + " was used " +
                std::to_string(times) + " times");
  const auto checkpoint = load_newest_checkpoint(world_.disk, kRunFolder / "checkpoints", "simulated");
  if (!checkpoint || checkpoint->meta.step != steps) return violation("the last checkpoint is not of the last step");
  outcome_.weights = static_cast<uint64_t>(checkpoint->parts.at("learner").at("weights").item<int64_t>());
}

// The same without faults, once for each workload.
uint64_t undisturbed_weights(const Workload& workload) {
  static std::mutex mutex;
  static std::map<Workload, uint64_t> all;
  const std::lock_guard lock(mutex);
  if (const auto found = all.find(workload); found != all.end()) return found->second;
  Plan plan{.seed = 1, .workload = workload, .conditions = {}};
  const Outcome outcome = Course(plan).play();
  if (!outcome.violations.empty()) throw std::runtime_error("the undisturbed run fails: " + outcome.violations.front());
  return all[workload] = outcome.weights;
}

}  // namespace

Plan plan_of(uint64_t seed) {
  Random random(mix(seed, 1));
  Plan plan{.seed = seed};
  plan.workload.actors = 1 + static_cast<int64_t>(random() % 2);
  plan.workload.checkpoint_every = 1 + static_cast<int64_t>(random() % 3);
  plan.conditions.loss = random() % 3 == 0 ? static_cast<double>(random() % 20) / 100.0 : 0;
  plan.conditions.slowest = Millis(random() % 4 == 0 ? 100 : 2);
  plan.faults = 1 + static_cast<int>(random() % 5);
  plan.workload.max_staleness = static_cast<int64_t>(random() % 3);
  plan.workload.deterministic = seed % 5 != 4;
  return plan;
}

Outcome play(const Plan& plan) {
  Outcome outcome = Course(plan).play();
  if (outcome.violations.empty() && plan.workload.deterministic &&
      outcome.weights != undisturbed_weights(plan.workload))
    outcome.violations.push_back("the final weights are not those of the undisturbed run");
  return outcome;
}

}  // namespace troupe::simulation
