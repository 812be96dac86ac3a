#include "roles/update_loop.hpp"

#include <algorithm>

#include "core/io/weight_layout.hpp"
#include "roles/actor.hpp"

namespace troupe {
namespace {

// A learner or actor that fails this often in a row is not going to recover.
constexpr int kMaxRepairs = 5;

// Version 0, which an actor loads by itself.
WeightManifest base_model() {
  return {.location = std::string(kBaseLocation)};
}

}  // namespace

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

UpdateLoop::UpdateLoop(const Topology& topology, const ConductorConfig& config, const std::filesystem::path& run_folder,
                       Context& context, Handle<LearnerFace> learner, std::vector<Handle<ActorFace>> actors,
                       RunJournal& journal)
    : topology_(topology),
      config_(config),
      run_folder_(run_folder.string()),
      context_(context),
      learner_(std::move(learner)),
      actors_(std::move(actors)),
      journal_(journal),
      dtype_(dtype_of_actors(topology)),
      deadline_(static_cast<int64_t>(topology.transport.ask_timeout_s * 1000)) {}

uint64_t UpdateLoop::lowest_needed() const {
  const auto behind = static_cast<uint64_t>(config_.max_staleness);
  if (journal_.last_step() <= behind) return 0;  // the base model, which is always there
  return std::max(journal_.last_step() - behind, oldest_);
}

void UpdateLoop::recover(uint64_t reported) {
  take_state(learner_.ask(AskState{}, options("state")).get());
  held_ = goal_ = lowest_needed();
  begun_ = std::max(held_, applied_);
  told_ = reported;
  remember_metrics();
  for (std::size_t i = 0; i < actors_.size(); ++i) bring_up_to_date(i);
}

// The learner gives its earlier answers to its newest updates again. One that was replaced since it told its state
// applies the update instead, so what it has to keep is said here too.
void UpdateLoop::remember_metrics() {
  for (uint64_t step = applied_; step > told_; --step) {
    const std::string what = "update step " + std::to_string(step) + ", its earlier answer";
    try {
      const Update again{
          .batch = journal_.read(step), .temperature = topology_.sampling.temperature, .keep_from = lowest_needed()};
      metrics_[step] = learner_.ask(again, options(what)).get().metrics;
    } catch (const RemoteFailure& failure) {
      if (failure.is(failure_code::kBehind)) return;  // older than it remembers
      throw;
    }
  }
}

void UpdateLoop::pump(uint64_t goal, bool may_take) {
  goal_ = goal;
  pump_takes(false);
  pump_learner();
  pump_takes(may_take);
}

// ---- the learner ----------------------------------------------------------------------------------------------------

void UpdateLoop::pump_learner() {
  try {
    take_answer();
  } catch (const RemoteFailure& failure) {  // it is a new one, from a checkpoint
    if (!failure.is(failure_code::kBehind) || ++setbacks_ > kMaxRepairs) throw;
    return ask_state();
  }
  if (stage_ == Stage::kIdle) begin_next();
}

void UpdateLoop::take_answer() {
  switch (stage_) {
    case Stage::kIdle:
      return;
    case Stage::kState:
      if (!state_.ready()) return;
      take_state(state_.get());
      break;
    case Stage::kUpdating:
      if (!updating_.ready()) return;
      take_update(updating_.get());
      break;
    case Stage::kPublishing:
      if (!publishing_.ready()) return;
      take_publication(publishing_.get());
      break;
    case Stage::kCheckpointing: {
      if (!checkpointing_.ready()) return;
      const Checkpointed written = checkpointing_.get();
      checkpointed_ = written.step;
      if (last_export_ && written.step == begun_) last_checkpoint_ = written;
      break;
    }
  }
  stage_ = Stage::kIdle;
}

// In this order: actors wait for versions, a checkpoint for the journal, an update for the checkpoint before it.
void UpdateLoop::begin_next() {
  const auto behind = static_cast<uint64_t>(config_.max_staleness);
  const auto steps = static_cast<uint64_t>(*config_.steps);
  manifests_.erase(manifests_.begin(), manifests_.lower_bound(lowest_needed()));
  for (uint64_t version = std::max<uint64_t>(lowest_needed(), 1); version <= applied_; ++version)
    if (!manifests_.contains(version)) return ask_publish(version);
  if (last_export_ && applied_ == begun_) {
    if (!last_checkpoint_) ask_checkpoint(*last_export_);
    return;
  }
  const bool due = config_.checkpoint_every > 0 && applied_ % static_cast<uint64_t>(config_.checkpoint_every) == 0 &&
                   applied_ > checkpointed_ && applied_ < steps;
  if (due) {
    if (journal_.last_step() >= std::min(applied_ + behind, steps)) ask_checkpoint("");
    return;
  }
  if (applied_ < goal_) ask_update(applied_ + 1);
}

void UpdateLoop::begin(Stage stage) {
  stage_ = stage;
  stage_began_ = context_.now();
}

void UpdateLoop::ask_state() {
  state_ = learner_.ask(AskState{}, options("state"));
  begin(Stage::kState);
}

void UpdateLoop::ask_update(uint64_t step) {
  begun_ = std::max(begun_, step);
  updating_ = learner_.ask(
      Update{.batch = journal_.read(step), .temperature = topology_.sampling.temperature, .keep_from = lowest_needed()},
      options("update step " + std::to_string(step)));
  begin(Stage::kUpdating);
}

void UpdateLoop::ask_publish(uint64_t version) {
  const bool same_host = topology_.transport.control == ControlTransport::kIpc;
  publishing_ = learner_.ask(
      PublishWeights{.version = version, .dtype = dtype_, .same_host = same_host, .keep_from = lowest_needed()},
      options("publish version " + std::to_string(version)));
  publishing_version_ = version;
  begin(Stage::kPublishing);
}

void UpdateLoop::ask_checkpoint(const std::string& export_folder) {
  checkpointing_ = learner_.ask(Checkpoint{.folder = run_folder_ + "/checkpoints",
                                           .step = applied_,
                                           .journal_offset = journal_.end_of(applied_),
                                           .export_folder = export_folder},
                                options("checkpoint step " + std::to_string(applied_)));
  begin(Stage::kCheckpointing);
}

void UpdateLoop::take_state(const LearnerState& state) {
  if (state.step > journal_.last_step())
    throw std::runtime_error(learner_.peer() + " has applied " + std::to_string(state.step) +
                             " steps, the journal ends at " + std::to_string(journal_.last_step()) +
                             ": they belong to different runs");
  applied_ = state.step;
  oldest_ = state.oldest;
  checkpointed_ = state.journal_offset == journal_.end_of(applied_) ? applied_ : 0;
  manifests_.clear();
}

void UpdateLoop::take_update(const Updated& updated) {
  if (updated.step != applied_ + 1)
    throw std::runtime_error(learner_.peer() + " answered step " + std::to_string(updated.step) +
                             " to the update of step " + std::to_string(applied_ + 1));
  applied_ = updated.step;
  setbacks_ = 0;
  if (applied_ <= told_) return;  // fed again
  metrics_[applied_] = updated.metrics;
  metrics_[applied_]["seconds_update"] = context_.seconds_since(stage_began_);
}

void UpdateLoop::take_publication(const PublishedWeights& published) {
  const uint64_t version = publishing_version_;
  manifests_[version] = published.manifest;
  setbacks_ = 0;
  if (version <= told_ || metrics_[version].contains("seconds_publish")) return;  // not the first time
  metrics_[version]["seconds_publish"] = context_.seconds_since(stage_began_);
  metrics_[version]["seconds_checksum"] = published.seconds_checksum;
  metrics_[version]["weights_digest"] = digest_metric(published.manifest);
}

MetricValues UpdateLoop::take_metrics(uint64_t step) {
  told_ = step;
  auto node = metrics_.extract(step);
  metrics_.erase(metrics_.begin(), metrics_.upper_bound(step));
  return node.empty() ? MetricValues() : std::move(node.mapped());
}

Checkpointed UpdateLoop::checkpoint(const std::string& export_folder) {
  last_export_ = export_folder;
  last_checkpoint_.reset();
  goal_ = begun_;
  while (!last_checkpoint_) {
    pump_learner();
    wait_for_learner();
  }
  last_export_.reset();
  return *last_checkpoint_;
}

void UpdateLoop::wait_for_learner() {
  std::vector<std::shared_ptr<AnswerSlot>> slots;
  add_learner_slots(slots);
  context_.beat("update", progress());
  context_.mailbox().wait_any(slots, context_.now() + Millis(500));
}

// ---- the actors -----------------------------------------------------------------------------------------------------

void UpdateLoop::pump_takes(bool may_begin) {
  if (taking_ < lowest_needed()) takes_.clear();  // nobody can give that version any more
  if (takes_.empty()) {
    const auto next = manifests_.upper_bound(held_);
    if (!may_begin || next == manifests_.end()) return;
    taking_ = next->first;
    takes_.resize(actors_.size());
    takes_began_ = context_.now();
  }
  const auto manifest = manifests_.find(taking_);
  for (std::size_t i = 0; i < takes_.size(); ++i) {
    Take& take = takes_[i];
    if (take.asked.valid() && take.asked.ready()) {
      try {
        take.taken = take.asked.get();
        take.done = true;
      } catch (const RemoteFailure&) {  // the memory may have died with the learner: have it publish again
        if (++take.failures > kMaxRepairs) throw;
        if (manifest != manifests_.end()) return void(manifests_.erase(manifest));
      }
    }
    if (!take.done && !take.asked.valid() && manifest != manifests_.end())
      take.asked =
          actors_[i].ask(TakeWeights{manifest->second}, options("take weights version " + std::to_string(taking_)));
  }
  if (!std::all_of(takes_.begin(), takes_.end(), [](const Take& take) { return take.done; })) return;
  held_ = taking_;
  MetricValues& metrics = metrics_[held_];
  metrics["seconds_publish"] += context_.seconds_since(takes_began_);
  for (const Take& take : takes_) {  // at the same time: the slowest counts
    metrics["seconds_verify"] = std::max(metrics["seconds_verify"], take.taken.seconds_verify);
    metrics["seconds_prove"] = std::max(metrics["seconds_prove"], take.taken.seconds_prove);
  }
  takes_.clear();
}

void UpdateLoop::bring_up_to_date(std::size_t actor) {
  for (int tries = 0;; ++tries) {
    uint64_t version = std::max(held_, lowest_needed());
    for (; version > 0 && !manifests_.contains(version); version = std::max(held_, lowest_needed())) {
      pump_learner();
      wait_for_learner();
    }
    const WeightManifest manifest = version > 0 ? manifests_.at(version) : base_model();
    try {
      actors_[actor].ask(TakeWeights{manifest}, options("take weights version " + std::to_string(version))).get();
      return;
    } catch (const RemoteFailure&) {
      if (tries == kMaxRepairs) throw;
    }
    manifests_.erase(version);  // published again, by a learner that may have to be fed first
  }
}

// ---- waiting --------------------------------------------------------------------------------------------------------

void UpdateLoop::add_learner_slots(std::vector<std::shared_ptr<AnswerSlot>>& out) const {
  if (state_.valid()) out.push_back(state_.slot());
  if (updating_.valid()) out.push_back(updating_.slot());
  if (publishing_.valid()) out.push_back(publishing_.slot());
  if (checkpointing_.valid()) out.push_back(checkpointing_.slot());
}

void UpdateLoop::add_slots(std::vector<std::shared_ptr<AnswerSlot>>& out) const {
  add_learner_slots(out);
  for (const Take& take : takes_)
    if (take.asked.valid()) out.push_back(take.asked.slot());
}

std::string UpdateLoop::progress() const {
  switch (stage_) {
    case Stage::kIdle:
      return takes_.empty() ? "" : "actors take version " + std::to_string(taking_);
    case Stage::kState:
      return "asks " + learner_.peer() + " how far it is";
    case Stage::kUpdating:
      return "update step " + std::to_string(applied_ + 1);
    case Stage::kPublishing:
      return "publish version " + std::to_string(publishing_version_);
    case Stage::kCheckpointing:
      return "checkpoint step " + std::to_string(applied_);
  }
  return "";
}

}  // namespace troupe
