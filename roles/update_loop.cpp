#include "roles/update_loop.hpp"

#include <algorithm>
#include <numeric>

#include "core/io/weight_layout.hpp"
#include "roles/actor.hpp"

namespace troupe {
namespace {

// A learner or actor that fails this often in a row is not going to recover.
constexpr int kMaxRepairs = 5;

// All actors of a run take one publication, so they compute in one dtype.
std::string dtype_of_actors(const Topology& topology) {
  std::string dtype;
  for (const NodeSection& node : topology.nodes) {
    if (role_of(node) != "actor") continue;
    const auto config = from_json<Actor::Config>(node.config, JsonPath("topology.json", *node.name + ".config"));
    const std::string own(enum_name(config.dtype));
    if (!dtype.empty() && own != dtype)
      throw std::invalid_argument("topology.json: actors compute in " + dtype + " and " + own + ", expected one dtype");
    dtype = own;
  }
  return dtype;
}

}  // namespace

UpdateLoop::UpdateLoop(const Topology& topology, const std::filesystem::path& run_folder, Context& context,
                       Handle<LearnerFace> learner, std::vector<Handle<ActorFace>> actors, RunJournal& journal)
    : topology_(topology),
      run_folder_(run_folder.string()),
      context_(context),
      learner_(std::move(learner)),
      actors_(std::move(actors)),
      journal_(journal),
      dtype_(dtype_of_actors(topology)),
      deadline_(static_cast<int64_t>(topology.transport.ask_timeout_s * 1000)) {}

double UpdateLoop::seconds_since(Instant from) const {
  return std::chrono::duration<double>(context_.now() - from).count();
}

Update UpdateLoop::update_of(const Experience& batch) const {
  return {.batch = batch, .temperature = topology_.sampling.temperature};
}

PublishWeights UpdateLoop::publish_of(uint64_t version) const {
  return {.version = version, .dtype = dtype_, .same_host = topology_.transport.control == ControlTransport::kIpc};
}

std::optional<Updated> UpdateLoop::recover() {
  std::optional<Updated> last;
  const uint64_t step = journal_.last_step();
  if (step == 0) return last;
  const std::string what = "update step " + std::to_string(step);
  updating_ = learner_.ask(update_of(journal_.read(step)), options(what));
  const auto again = [&] { return learner_.ask(update_of(journal_.read(step)), options(what)); };
  for (int tries = 0; !last; ++tries) {
    updating_.wait_until(Instant::max());
    last = answer_of<Updated>(updating_, again);
    if (tries > kMaxRepairs)
      throw std::runtime_error(learner_.peer() + ": cannot be brought to step " + std::to_string(step));
  }
  publish_and_wait();
  last->metrics["weights_digest"] = digest_metric(*manifest_);
  for (std::size_t i = 0; i < actors_.size(); ++i) bring_up_to_date(i);
  published_ = step;
  return last;
}

void UpdateLoop::start(const Experience& batch) {
  const Instant began = context_.now();
  journal_.append(batch);
  const uint64_t step = batch.step;
  metrics_ = MetricValues{{"seconds_journal", seconds_since(began)}};
  updating_ = learner_.ask(update_of(batch), options("update step " + std::to_string(step)));
  stage_ = Stage::kUpdating;
  stage_began_ = context_.now();
}

template <class Reply, class Again>
std::optional<Reply> UpdateLoop::answer_of(Pending<Reply>& pending, Again again) {
  try {
    return pending.get();
  } catch (const RemoteFailure& failure) {
    if (!failure.is(failure_code::kBehind)) throw;
  }
  feed_learner();
  pending = again();
  return std::nullopt;
}

// All journalled steps before the last one; the last is asked for by whoever noticed.
void UpdateLoop::feed_learner() {
  LearnerState state = learner_.ask(AskState{}, options("state")).get();
  if (state.step > journal_.last_step())
    throw std::runtime_error(learner_.peer() + " has applied " + std::to_string(state.step) +
                             " steps, the journal ends at " + std::to_string(journal_.last_step()) +
                             ": they belong to different runs");
  while (state.step + 1 < journal_.last_step()) {
    const uint64_t next = state.step + 1;
    context_.beat("recover", learner_.peer() + ": step " + std::to_string(next) + " again");
    const Updated updated =
        learner_.ask(update_of(journal_.read(next)), options("update step " + std::to_string(next) + " again")).get();
    state.step = updated.step;
  }
}

void UpdateLoop::after_update(const Updated& updated) {
  for (const auto& [name, value] : updated.metrics) (*metrics_)[name] = value;
  (*metrics_)["seconds_update"] = seconds_since(stage_began_);
  publishing_ = learner_.ask(publish_of(updated.step), options("publish version " + std::to_string(updated.step)));
  stage_ = Stage::kPublishing;
  stage_began_ = context_.now();
}

void UpdateLoop::pump() {
  if (stage_ == Stage::kUpdating && updating_.ready()) {
    const uint64_t step = journal_.last_step();
    const auto updated = answer_of<Updated>(updating_, [&] {
      return learner_.ask(update_of(journal_.read(step)), options("update step " + std::to_string(step)));
    });
    if (updated) after_update(*updated);
  }
  if (stage_ == Stage::kPublishing && publishing_.ready()) {
    const auto published = answer_of<PublishedWeights>(publishing_, [&] {
      const uint64_t step = journal_.last_step();
      learner_.ask(update_of(journal_.read(step)), options("update step " + std::to_string(step) + " again")).get();
      return learner_.ask(publish_of(step), options("publish version " + std::to_string(step)));
    });
    if (published) {
      manifest_ = published->manifest;
      taking_ = ask_all(actors_, TakeWeights{*manifest_},
                        options("take weights version " + std::to_string(manifest_->version)));
      stage_ = Stage::kTaking;
    }
  }
  if (stage_ == Stage::kTaking &&
      std::all_of(taking_.begin(), taking_.end(), [](const auto& pending) { return pending.ready(); })) {
    for (std::size_t i = 0; i < taking_.size(); ++i) {
      try {
        taking_[i].get();
      } catch (const RemoteFailure&) {  // the learner died with the memory, or the actor: bring it again
        bring_up_to_date(i);
      }
    }
    taking_.clear();
    published_ = manifest_->version;
    (*metrics_)["seconds_publish"] = seconds_since(stage_began_);
    (*metrics_)["weights_version"] = static_cast<double>(published_);
    (*metrics_)["weights_digest"] = digest_metric(*manifest_);
    finished_ = std::move(metrics_);
    stage_ = Stage::kIdle;
  }
}

std::optional<MetricValues> UpdateLoop::take_finished() {
  return std::exchange(finished_, std::nullopt);
}

// The journal's last step, published anew by a learner that may have to be fed first.
void UpdateLoop::publish_and_wait() {
  const uint64_t step = journal_.last_step();
  const std::string what = "publish version " + std::to_string(step);
  for (int tries = 0;; ++tries) {
    Pending<PublishedWeights> pending = learner_.ask(publish_of(step), options(what));
    pending.wait_until(Instant::max());
    const auto again = [&] {
      learner_.ask(update_of(journal_.read(step)), options("update step " + std::to_string(step) + " again")).get();
      return learner_.ask(publish_of(step), options(what));
    };
    if (auto published = answer_of<PublishedWeights>(pending, again)) {
      manifest_ = published->manifest;
      return;
    }
    if (tries == kMaxRepairs) throw std::runtime_error(learner_.peer() + ": " + what + " failed again and again");
  }
}

void UpdateLoop::bring_up_to_date(std::size_t actor) {
  if (!manifest_) throw std::runtime_error(actors_[actor].peer() + " does not hold the base model at the run's start");
  for (int tries = 0;; ++tries) {
    try {
      actors_[actor]
          .ask(TakeWeights{*manifest_}, options("take weights version " + std::to_string(manifest_->version)))
          .get();
      return;
    } catch (const RemoteFailure&) {
      if (tries == kMaxRepairs) throw;
    }
    publish_and_wait();  // the learner that held the memory was replaced
  }
}

Checkpointed UpdateLoop::checkpoint(const std::string& export_folder) {
  const uint64_t step = journal_.last_step();
  const Checkpoint message{.folder = run_folder_ + "/checkpoints",
                           .step = step,
                           .journal_offset = journal_.end_of(step),
                           .export_folder = export_folder};
  const std::string what = "checkpoint step " + std::to_string(step);
  for (int tries = 0;; ++tries) {
    try {
      return learner_.ask(message, options(what)).get();
    } catch (const RemoteFailure& failure) {
      if (!failure.is(failure_code::kBehind) || tries == kMaxRepairs) throw;
    }
    recover();
  }
}

void UpdateLoop::add_slots(std::vector<std::shared_ptr<AnswerSlot>>& out) const {
  if (updating_.valid()) out.push_back(updating_.slot());
  if (publishing_.valid()) out.push_back(publishing_.slot());
  for (const auto& pending : taking_)
    if (pending.valid() && !pending.ready()) out.push_back(pending.slot());
}

std::string UpdateLoop::progress() const {
  switch (stage_) {
    case Stage::kIdle:
      return "";
    case Stage::kUpdating:
      return "update step " + std::to_string(journal_.last_step());
    case Stage::kPublishing:
      return "publish version " + std::to_string(journal_.last_step());
    case Stage::kTaking:
      return "actors take version " + std::to_string(journal_.last_step());
  }
  return "";
}

}  // namespace troupe
