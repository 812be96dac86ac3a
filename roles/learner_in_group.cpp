// What a learner does with the others of its group.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <cstdio>

#include "core/config.hpp"
#include "core/io/crc32c.hpp"
#include "roles/learner.hpp"

namespace troupe {
namespace {

// Groups that break one after another, each by another death: more than the supervisor would restart.
constexpr int kMaxRegroups = 20;

// CRC-32C of the tensors' CRC-32Cs. Runs on at::get_num_threads() threads.
int64_t digest_of(const StateDict& weights) {
  std::vector<at::Tensor> tensors;
  for (const auto& [name, tensor] : weights) tensors.push_back(tensor.detach().cpu().contiguous());
  std::vector<uint32_t> digests(tensors.size());
  at::parallel_for(0, static_cast<int64_t>(tensors.size()), 1, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i)
      digests[i] = crc32c({static_cast<const std::byte*>(tensors[i].const_data_ptr()), tensors[i].nbytes()});
  });
  return crc32c(std::as_bytes(std::span(digests)));
}

std::string text_of(const std::vector<Standing>& all) {
  std::string text;
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    char line[80];
    std::snprintf(line, sizeof line, "%srank %zu has %08llx at step %lld", rank == 0 ? "" : ", ", rank,
                  static_cast<unsigned long long>(all[rank].digest), static_cast<long long>(all[rank].step));
    text += line;
  }
  return text;
}

}  // namespace

void Learner::need_group() {
  if (!group_) return;
  if (!group_->leads())
    throw std::invalid_argument(setting_.instance + " does its share only; the first learner is to be asked");
  if (group_->generation() == 0) regroup();
}

// Runs `own`, while the others do theirs, and waits until all have come to an end. A group that has broken is left, and
// that is all; whatever else went wrong with any of them is thrown.
template <class Reply, class Own>
void Learner::together(std::vector<Pending<Reply>> others, const Own& own) {
  std::exception_ptr failed;
  const auto attempt = [&](const auto& part) {
    try {
      return part();
    } catch (const RemoteFailure& failure) {
      if (!failure.is(kRegroup) && !failed) failed = std::current_exception();
    } catch (const std::exception&) {
      if (!failed) failed = std::current_exception();
    }
    group_->leave();
  };
  attempt(own);
  for (Pending<Reply>& other : others) attempt([&] { other.get(); });
  if (failed) std::rethrow_exception(failed);
}

Updated Learner::update_together(const Update& m) {
  std::optional<Updated> updated;
  together(group_->ask_others(TrainShare{group_->generation(), m}, "share of step " + std::to_string(m.batch.step)),
           [&] { updated = apply_update(m); });
  return updated ? *updated : handle(m);  // the group has broken: in the next one
}

void Learner::regroup() {
  for (int tries = 0; group_->generation() == 0; ++tries) {
    if (tries == kMaxRegroups)
      throw std::runtime_error("the learners' group broke " + std::to_string(tries) + " times while it was formed");
    LearnerGroup::Call call = group_->call_together();
    together(std::move(call.joining), [&] { join(call.generation); });
  }
}

void Learner::join(uint64_t generation) {
  group_->join(generation);
  engine_->zero_grad();  // of a sum that was cut off
  for (;;) {
    const Agreement agreed = agree();
    divergences_ += agreed.diverged;
    if (agreed.shared && agreed.root >= 0) take_state(agreed.root);
    if (agreed.root >= 0) break;
    load();
  }
  fresh_ = false;
}

// Compares with the others where all stand. Different weights at one step are told, and an error the second time.
Agreement Learner::agree() {
  const std::vector<Standing> all = group_->compare({.step = static_cast<int64_t>(progress_.step()),
                                                     .whole = whole_,
                                                     .fresh = fresh_,
                                                     .digest = digest_of(engine_->weights())});
  const Agreement agreed = agreement_of(all, config_.zero == 1);
  if (!agreed.disagree) return agreed;
  ++disagreements_;
  const std::string text = "the learners' weights are not the same bits: " + text_of(all);
  if (std::exchange(disagreed_at_, progress_.step()) == progress_.step())
    throw std::runtime_error(text + ", and were not before at this step");
  std::fprintf(stderr, "%s: %s; all go back to the newest checkpoint\n", setting_.instance.c_str(), text.c_str());
  return agreed;
}

// Before anybody hears of a step.
void Learner::need_agreement() {
  if (!agree().disagree) return;
  whole_ = false;
  group_->leave();
  throw RemoteFailure({std::string(kRegroup), setting_.instance, "update step " + std::to_string(progress_.step()),
                       "the learners' weights are not the same bits"});
}

void Learner::take_state(int root) {
  const bool gives = group_->rank() == root;
  context_.beat("regroup", "state of rank " + std::to_string(root));
  StateDict state = engine_->state();
  Json own{{"step", progress_.step()},
           {"journal_offset", progress_.journal_offset()},
           {"moments", 0},
           {"answers", Json::array()}};
  if (state.contains("optimizer.m")) own["moments"] = state.at("optimizer.m").numel();
  for (const auto& [step, answer] : progress_.answers()) own["answers"].push_back({step, answer.metrics});
  const Json given = Json::parse(group_->exchange(gives ? own.dump() : "")[static_cast<std::size_t>(root)]);
  for (const char* name : {"optimizer.m", "optimizer.v"}) {  // absent before the first update
    state.erase(name);
    if (given.at("moments") > 0) state[name] = at::empty({given.at("moments").get<int64_t>()}, at::kFloat);
  }
  if (gives) state = engine_->state();
  for (auto& [name, tensor] : state) {
    at::Tensor flat = gives ? tensor.reshape({-1}) : at::empty({tensor.numel()}, tensor.options());
    std::vector<int64_t> bounds(static_cast<std::size_t>(group_->size()) + 1, 0);
    std::fill(bounds.begin() + root + 1, bounds.end(), flat.numel());  // the root brings all of it
    group_->gather(flat, bounds);
    tensor = flat.reshape(tensor.sizes());
  }
  if (gives) return;
  engine_->load_state(state);
  std::map<uint64_t, Updated> answers;
  for (const Json& answer : given.at("answers"))
    answers[answer[0]] = Updated{.step = answer[0], .metrics = answer[1].get<std::map<std::string, double>>()};
  progress_.begin_at(given.at("step"), given.at("journal_offset"), std::move(answers));
  whole_ = true;
}

StateDict Learner::whole_state() {
  if (!group_ || config_.zero == 0) return engine_->state();
  StateDict state;
  together(group_->ask_others(GatherState{group_->generation()}, "gather state"), [&] { state = engine_->state(); });
  if (state.empty()) progress_.fail_behind("checkpoint");  // the group is gone, and with it a part of the state
  return state;
}

// ---- the others ---------------------------------------------------------------------------------------------------

// A failure of its own breaks the group too: the rest must not wait for it.
template <class Share>
Ack Learner::take_part(uint64_t generation, const Share& share) {
  if (!group_) throw std::invalid_argument(setting_.instance + " is the only learner");
  if (group_->generation() != generation)
    throw RemoteFailure({std::string(kRegroup), setting_.instance, "take part",
                         "asked in generation " + std::to_string(generation) + ", it is in generation " +
                             std::to_string(group_->generation())});
  try {
    share();
  } catch (...) {
    group_->leave();
    throw;
  }
  return {};
}

Presence Learner::handle(const AskPresence&) {
  return {context_.incarnation()};
}

Ack Learner::handle(const JoinGroup& m) {
  if (m.incarnation != context_.incarnation())
    throw RemoteFailure({std::string(kRegroup), setting_.instance, "join",
                         "incarnation " + std::to_string(m.incarnation) + " was meant"});
  if (group_) group_->leave();
  return take_part(0, [&] { join(m.generation); });
}

Ack Learner::handle(const TrainShare& m) {
  return take_part(m.generation, [&] {
    progress_.need_step(m.update.batch.step - 1, "share of step " + std::to_string(m.update.batch.step));
    apply_update(m.update);
  });
}

Ack Learner::handle(const GatherState& m) {
  return take_part(m.generation, [&] { engine_->state(); });
}

}  // namespace troupe
