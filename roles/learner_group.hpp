// The learners of a run that train as one: NAME/0 leads, the conductor asks it alone, and what it is asked it has the
// others do their share of. They form a Group (actors/collectives.hpp); when one of them dies the others' collective
// throws, and the leader forms the next one: it waits until every learner answers, has the conductor number a
// generation (nobody else numbers any, so one that is left over is fenced), and tells it to the others. Survivors keep
// their process and what they have loaded.
//
// Collectives are not atomic: one learner may have applied a step that another was denied. So in every new group the
// learners compare where they stand, and the highest step wins (agreement_of()). They compare again after every update,
// before anybody hears of it: learners that stand at one step have the same bits of weights, or none of them is
// believed and all go back to the newest checkpoint.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "actors/collectives.hpp"
#include "actors/rendezvous.hpp"
#include "core/train/packed_batch.hpp"
#include "core/train/shard_group.hpp"
#include "roles/setting.hpp"

namespace troupe {

// ---- what the leader asks of the others ----------------------------------------------------------------------------

inline constexpr std::string_view kRegroup = "regroup";  // failure code: the group has broken, or is another one

struct Presence {
  static constexpr std::string_view kName = "presence";
  uint64_t incarnation = 0;  // of the learner's process
  static constexpr std::tuple kFields{Field{"incarnation", &Presence::incarnation}};
};
TROUPE_FIELDS_COMPLETE(Presence);

struct AskPresence {  // answered by a learner that has loaded and does nothing else
  static constexpr std::string_view kName = "ask_presence";
  using Reply = Presence;
  static constexpr std::tuple<> kFields{};
};

struct JoinGroup {  // forms the group of this generation and takes on the state that it agrees on
  static constexpr std::string_view kName = "join_group";
  using Reply = Ack;
  uint64_t generation = 0;   // numbered by the conductor
  uint64_t incarnation = 0;  // of the process that is meant: one that replaced it comes too late
  static constexpr std::tuple kFields{Field{"generation", &JoinGroup::generation},
                                      Field{"incarnation", &JoinGroup::incarnation}};
};
TROUPE_FIELDS_COMPLETE(JoinGroup);

struct TrainShare {  // a share of an update, every gradient summed over the group
  static constexpr std::string_view kName = "train_share";
  using Reply = Ack;
  uint64_t generation = 0;
  Update update;
  static constexpr std::tuple kFields{Field{"generation", &TrainShare::generation},
                                      Field{"update", &TrainShare::update}};
};
TROUPE_FIELDS_COMPLETE(TrainShare);

struct GatherState {  // hands the leader what it keeps of the optimizer's state, for a checkpoint
  static constexpr std::string_view kName = "gather_state";
  using Reply = Ack;
  uint64_t generation = 0;
  static constexpr std::tuple kFields{Field{"generation", &GatherState::generation}};
};
TROUPE_FIELDS_COMPLETE(GatherState);

struct GroupLearnerFace {  // what a learner serves, that of a single one included
  using Accepts = Messages<Update, LogProbs, AskState, PublishWeights, FetchChunk, Checkpoint, AskPresence, JoinGroup,
                           TrainShare, GatherState>;
};

// ---- agreement and shares ------------------------------------------------------------------------------------------

// Where a learner stands when a group is formed.
struct Standing {
  int64_t step = 0;    // applied
  bool whole = true;   // false: something of a step was applied that did not come to its end
  bool fresh = false;  // has not been in a group before: it has what the newest checkpoint has
  int64_t digest = 0;  // of the weights' bits
};

struct Agreement {
  int root = -1;          // whose state all go on with; -1: nobody's, all go back to the newest checkpoint
  bool shared = false;    // the others have another state, or none
  bool diverged = false;  // two that were in a group stand at different steps
  bool disagree = false;  // two at the highest step have different weights: which are right, nobody can tell
};

// `sharded`: nobody has the whole optimizer state, so what one learner has lost no other can give it.
Agreement agreement_of(const std::vector<Standing>& all, bool sharded);

// ranks + 1 bounds: the sequences of a batch in shares of about as many tokens each, cut between different prompts
// where there are enough of these (answers to one prompt are computed faster together). Deterministic.
std::vector<int64_t> share_bounds(const PackedBatch& batch, int ranks);

// One learner's end of it. Operations throw RemoteFailure kRegroup when the group has broken (or there is none) and
// leave it then. Working thread.
class LearnerGroup final : public ShardGroup {
 public:
  LearnerGroup(const RoleSetting& setting, Context& context);

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  bool leads() const { return rank_ == 0; }
  // 0: in none. The lower bits count the groups of one life of the conductor, whose epoch stands above them.
  static constexpr int kCountBits = 32;
  uint64_t generation() const { return group_ ? group_->options().generation : 0; }

  void join(uint64_t generation);
  void leave() { group_.reset(); }

  std::vector<Standing> compare(const Standing& own);
  void sum(at::Tensor& tensor);  // in place; the same bits on every rank
  void gather(at::Tensor& whole, std::span<const int64_t> bounds) override;
  std::vector<std::string> exchange(const std::string& own);  // of every rank

  // The leader's: the same message to every other learner.
  template <class M>
  std::vector<Pending<typename M::Reply>> ask_others(const M& message, const std::string& what) const {
    return ask_all(others_, message, {.deadline = deadline_, .what = what});
  }
  // Waits until every learner answers, has the conductor number the next generation, and asks all others to join it.
  struct Call {
    uint64_t generation;
    std::vector<Pending<Ack>> joining;
  };
  Call call_together();

 private:
  uint64_t next_generation();
  [[noreturn]] void broken(const std::string& what, const std::string& why);
  template <class Operation>
  void collective(const char* what, const Operation& operation);

  Context& context_;
  const int rank_, size_;
  const std::string address_;
  const Millis deadline_;
  std::vector<Handle<GroupLearnerFace>> others_;
  std::unique_ptr<Group> group_;
};

// The conductor's part: serves the table where the learners meet and numbers their generations, from a thread of its
// own. Null where there is but one learner.
std::unique_ptr<RendezvousServer> serve_rendezvous(const RoleSetting& setting, Context& context);

}  // namespace troupe
