#include "roles/conductor.hpp"

#include "core/metrics/report.hpp"
#include "core/metrics/summary.hpp"
#include "roles/model_source.hpp"

namespace troupe {
namespace {

Instant now() {
  return std::chrono::steady_clock::now();
}

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

Conductor::Conductor(const RoleSetting& setting, Context& context)
    : config_(from_json<Config>(setting.config(), setting.where())),
      setting_(setting),
      context_(context),
      tokenizer_(load_tokenizer(*setting.topology.model)),
      actors_(context.handles<ActorFace>(instances_of_role(setting.topology, "actor"))),
      journal_(setting.run_folder / "journal"),
      update_(setting_, context, context.handle<LearnerFace>(need(setting.topology, "learner")), actors_, journal_),
      roll_(setting_.topology, config_,
            make_algorithm(setting.topology.algorithm, JsonPath("topology.json", "algorithm")),
            read_tokenized_prompts(*setting.topology.prompts.file, tokenizer_, setting.topology.prompts),
            roles_of(setting.topology, context), [this](std::size_t actor) { update_.bring_up_to_date(actor); }) {
  const PromptsSection& prompts = setting_.topology.prompts;
  if (!prompts.held_out.empty())
    evaluation_.emplace(context, config_.evaluation, setting_.topology.sampling, setting_.topology.run.seed,
                        read_tokenized_prompts(prompts.held_out, tokenizer_, prompts),
                        context.handle<RewardFace>(need(setting_.topology, "reward")),
                        Millis(static_cast<int64_t>(setting_.topology.transport.ask_timeout_s * 1000)));
}

void Conductor::run(Context&) {
  recover();
  if (journal_.last_step() == 0 && !read_summary(setting_.run_folder).contains("accuracy_before"))
    evaluate("accuracy_before");
  train();
  finish();
}

void Conductor::recover() {
  context_.beat("recover", "journal ends at step " + std::to_string(journal_.last_step()));
  const uint64_t step = journal_.last_step();
  const std::optional<Updated> last = update_.recover();
  const auto file = setting_.run_folder / "metrics.jsonl";
  const bool written = step == 0 || [&] {
    if (!std::filesystem::exists(file)) return false;
    const auto lines = read_metrics(file);
    return !lines.empty() && lines.back().step >= step;
  }();
  metrics_.emplace(setting_.run_folder, written ? step : step - 1);
  if (written) return;
  // The step was applied, but its line was not written before the conductor died: what the journal and the learner
  // still know of it.
  MetricValues values = metrics_of(journal_.read(step));
  for (const auto& [name, value] : last->metrics) values[name] = value;
  metrics_->write(step, values);
}

// What the loop waits for: rollouts, scores, log-probabilities, an update, a publication; and, at most half a second, a
// request to stop. Each of them comes from a role, whose death the supervisor repairs.
void Conductor::train() {
  uint64_t next = journal_.last_step() + 1;  // to be rolled
  while (!(context_.stopping() && !update_.busy()) && (update_.busy() || journal_.last_step() < steps())) {
    const uint64_t allowed = update_.published_version() + 1 + static_cast<uint64_t>(config_.max_staleness);
    for (; next <= std::min(steps(), allowed) && !context_.stopping(); ++next) {
      began_ = now();
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

void Conductor::wait() {
  std::vector<std::shared_ptr<AnswerSlot>> slots;
  roll_.add_slots(slots);
  update_.add_slots(slots);
  const std::string progress = update_.busy() ? update_.progress() : roll_.progress();
  context_.beat(update_.busy() ? "update" : "roll", progress);
  context_.mailbox().wait_any(slots, now() + Millis(500));
}

void Conductor::end_step(MetricValues metrics) {
  const uint64_t step = journal_.last_step();
  metrics.merge(rolled_);
  metrics["seconds_step"] = std::chrono::duration<double>(now() - began_).count();
  if (config_.evaluation.every > 0 && step % static_cast<uint64_t>(config_.evaluation.every) == 0 && evaluation_ &&
      step < steps()) {
    Generation generation(actors_, Millis(static_cast<int64_t>(setting_.topology.transport.ask_timeout_s * 1000)),
                          [this](std::size_t actor) { update_.bring_up_to_date(actor); });
    metrics["accuracy"] = evaluation_->run(generation, update_.published_version()).value;
  }
  metrics_->write(step, metrics);
  if (config_.checkpoint_every > 0 && step % static_cast<uint64_t>(config_.checkpoint_every) == 0 && step < steps())
    update_.checkpoint("");
}

void Conductor::evaluate(const std::string& key) {
  if (!evaluation_) return;
  Generation generation(actors_, Millis(static_cast<int64_t>(setting_.topology.transport.ask_timeout_s * 1000)),
                        [this](std::size_t actor) { update_.bring_up_to_date(actor); });
  const Accuracy accuracy = evaluation_->run(generation, update_.published_version());
  if (context_.stopping()) return;  // not all prompts were asked
  merge_summary(setting_.run_folder, {{key, accuracy.value}, {"held_out_prompts", accuracy.prompts}});
}

void Conductor::finish() {
  const bool done = journal_.last_step() >= steps();
  if (done) evaluate("accuracy_after");
  const std::string folder = config_.export_model ? (setting_.run_folder / "export").string() : "";
  if (journal_.last_step() > 0) update_.checkpoint(folder);
  merge_summary(setting_.run_folder,
                {{"steps", journal_.last_step()}, {"state", done ? "done" : "stopped"}, {"export", folder}});
  if (journal_.last_step() > 0) write_report(setting_.run_folder);
}

}  // namespace troupe
