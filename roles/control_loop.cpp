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
      deterministic_(topology.run.deterministic),
      context_(context),
      actors_(context.handles<ActorFace>(instances_of_role(topology, "actor"))),
      deadline_(static_cast<int64_t>(topology.transport.ask_timeout_s * 1000)),
      journal_(disk, run_folder / "journal"),
      update_(topology, config_, run_folder, context, context.handle<LearnerFace>(need(topology, "learner")), actors_,
              journal_),
      roll_(topology, config_, make_algorithm(topology.algorithm, JsonPath("topology.json", "algorithm")),
            std::move(prompts), roles_of(topology, context), context,
            [this](std::size_t actor) { update_.bring_up_to_date(actor); }),
      step_ended_(std::move(step_ended)) {}

Generation ControlLoop::generation() {
  return {actors_, deadline_, [this](std::size_t actor) { update_.bring_up_to_date(actor); }};
}

void ControlLoop::recover(uint64_t reported) {
  context_.beat("recover", "journal ends at step " + std::to_string(journal_.last_step()));
  update_.recover(reported);
  next_ = journal_.last_step() + 1;
  ended_ = std::min(reported, journal_.last_step());
  last_ended_ = context_.now();
  end_steps(update_.held());
}

// What the loop waits for: rollouts, scores, log-probabilities, an update, a publication, a checkpoint; and, at most
// half a second, a request to stop. Each of them comes from a role, whose death the supervisor repairs.
void ControlLoop::train() {
  for (notice_stop(); !finished(); notice_stop()) {
    open_steps();
    roll_.pump();
    journal_batches();
    update_.pump(stop_at_.value_or(journal_.last_step()), may_take());
    if (!end_steps(update_.held())) wait();
  }
  end_steps(update_.applied());
}

void ControlLoop::notice_stop() {
  if (context_.stopping() && !stop_at_) stop_at_ = update_.begun();
}

bool ControlLoop::finished() const {
  if (!stop_at_) return ended_ == num_steps() && update_.held() == num_steps();
  return update_.idle() && update_.applied() == *stop_at_ && journal_.last_step() >= last_to_roll();
}

// A checkpoint of the step at which a run is stopped needs K steps behind it in the journal.
uint64_t ControlLoop::last_to_roll() const {
  if (!stop_at_) return num_steps();
  return *stop_at_ > 0 ? std::min(*stop_at_ + staleness(), num_steps()) : 0;
}

void ControlLoop::open_steps() {
  for (; next_ <= std::min(last_to_roll(), update_.held() + 1 + staleness()); ++next_) {
    opened_[next_] = context_.now();
    roll_.start(next_, update_.held());
  }
}

void ControlLoop::journal_batches() {
  while (auto rolled = roll_.take(journal_.last_step() + 1)) {
    const Instant began = context_.now();
    journal_.append(rolled->batch);
    rolled->metrics["seconds_journal"] = context_.seconds_since(began);
    rolled_[journal_.last_step()] = std::move(rolled->metrics);
  }
}

bool ControlLoop::may_take() const {
  return !deterministic_ || !roll_.generating();
}

bool ControlLoop::end_steps(uint64_t up_to) {
  if (ended_ >= up_to) return false;
  while (ended_ < up_to) {
    const uint64_t step = ended_ + 1;
    MetricValues metrics = update_.take_metrics(step);
    auto rolled = rolled_.extract(step);
    metrics.merge(rolled.empty() ? metrics_of(journal_.read(step)) : std::move(rolled.mapped()));
    metrics["weights_version"] = static_cast<double>(step);
    if (const auto opened = opened_.extract(step); !opened.empty()) {
      const Instant began = std::max(opened.mapped(), last_ended_);
      metrics["seconds_step"] = context_.seconds_since(began);
    }
    step_ended_(step, std::move(metrics));
    last_ended_ = context_.now();
    ended_ = step;
  }
  return true;
}

void ControlLoop::wait() {
  std::vector<std::shared_ptr<AnswerSlot>> slots;
  roll_.add_slots(slots);
  update_.add_slots(slots);
  const std::string updating = update_.progress();
  context_.beat(updating.empty() ? "roll" : "update", updating.empty() ? roll_.progress() : updating);
  context_.mailbox().wait_any(slots, context_.now() + Millis(500));
}

}  // namespace troupe
