#include "roles/control_loop.hpp"

namespace troupe {
namespace {

// The one instance of a role; none when the topology has no such node.
std::optional<std::string> instance_of(const Topology& topology, std::string_view role) {
  const std::vector<std::string> all = instances_of_role(topology, role);
  if (all.empty()) return std::nullopt;
  return all.front();
}

std::string need(const Topology& topology, std::string_view role) {
  if (const auto instance = instance_of(topology, role)) return *instance;
  throw std::invalid_argument("topology.json: nodes: no node plays the role '" + std::string(role) + "'");
}

RollLoop::Roles roles_of(const Topology& topology, Context& context) {
  RollLoop::Roles roles{.actors = context.handles<ActorFace>(instances_of_role(topology, "actor")),
                        .reward = context.handle<RewardFace>(need(topology, "reward")),
                        .reference = std::nullopt};
  if (const auto reference = instance_of(topology, "reference"))
    roles.reference = context.handle<ReferenceFace>(*reference);
  return roles;
}

}  // namespace

ControlLoop::ControlLoop(const Topology& topology, const ConductorConfig& config, std::vector<TokenizedPrompt> prompts,
                         Context& context, Disk& disk, const std::filesystem::path& run_folder, StepEnded step_ended)
    : config_(config),
      context_(context),
      actors_(context.handles<ActorFace>(instances_of_role(topology, "actor"))),
      deadline_(static_cast<int64_t>(topology.transport.ask_timeout_s * 1000)),
      journal_(disk, run_folder / "journal"),
      update_(topology, run_folder, context, context.handle<LearnerFace>(need(topology, "learner")), actors_, journal_),
      roll_(topology, config_, make_algorithm(topology.algorithm, JsonPath("topology.json", "algorithm")),
            std::move(prompts), roles_of(topology, context), context,
            [this](std::size_t actor) { update_.bring_up_to_date(actor); }),
      step_ended_(std::move(step_ended)) {}

Generation ControlLoop::generation() {
  return {actors_, deadline_, [this](std::size_t actor) { update_.bring_up_to_date(actor); }};
}

void ControlLoop::recover(uint64_t reported) {
  const uint64_t step = journal_.last_step();
  context_.beat("recover", "journal ends at step " + std::to_string(step));
  const std::optional<Updated> last = update_.recover();
  if (reported >= step) return;
  MetricValues values = metrics_of(journal_.read(step));
  for (const auto& [name, value] : last->metrics) values[name] = value;
  step_ended_(step, std::move(values));
}

// What the loop waits for: rollouts, scores, log-probabilities, an update, a publication; and, at most half a second, a
// request to stop. Each of them comes from a role, whose death the supervisor repairs.
void ControlLoop::train() {
  const auto steps = static_cast<uint64_t>(*config_.steps);
  uint64_t next = journal_.last_step() + 1;  // to be rolled
  while (!(context_.stopping() && !update_.busy()) && (update_.busy() || journal_.last_step() < steps)) {
    const uint64_t allowed = update_.published_version() + 1 + static_cast<uint64_t>(config_.max_staleness);
    for (; next <= std::min(steps, allowed) && !context_.stopping(); ++next) {
      began_ = context_.now();
      roll_.start(next, update_.published_version());
    }
    roll_.pump();
    if (!update_.busy() && !context_.stopping()) {
      if (auto rolled = roll_.take(journal_.last_step() + 1)) {
        rolled_ = std::move(rolled->metrics);
        update_.start(rolled->batch);
      }
    }
    update_.pump();
    if (auto finished = update_.take_finished()) {
      end_step(std::move(*finished));
    } else {
      wait();
    }
  }
}

void ControlLoop::wait() {
  std::vector<std::shared_ptr<AnswerSlot>> slots;
  roll_.add_slots(slots);
  update_.add_slots(slots);
  const std::string progress = update_.busy() ? update_.progress() : roll_.progress();
  context_.beat(update_.busy() ? "update" : "roll", progress);
  context_.mailbox().wait_any(slots, context_.now() + Millis(500));
}

void ControlLoop::end_step(MetricValues metrics) {
  const uint64_t step = journal_.last_step();
  metrics.merge(rolled_);
  metrics["seconds_step"] = std::chrono::duration<double>(context_.now() - began_).count();
  step_ended_(step, std::move(metrics));
  if (config_.checkpoint_every > 0 && step % static_cast<uint64_t>(config_.checkpoint_every) == 0 && !done())
    update_.checkpoint("");
}

}  // namespace troupe
