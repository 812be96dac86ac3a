// Faults on purpose, for tests and `troupe chaos`: a process passes named points on its way, and the environment says
// at which of them it is killed, stopped, hung or delayed.
//
//   TROUPE_FAULTS="learner/0:update:2:kill;actor#2:generate:7:spin;*:message:*:delay~20"
//
//   FAULT[;FAULT...]   FAULT = NODE[#INCARNATION]:PHASE:N:ACTION
//   NODE         an instance ("actor/0"), a role ("actor": each of its instances) or "*" (every role; the supervisor is
//                meant only by its own name, and its death is that of the whole run)
//   INCARNATION  which start of the process; 1 when left out, so that the replacement does not repeat the fault; "*"
//                all
//   PHASE        one of kFaultPhases
//   N            the N-th time that this process passes the phase, from 1; "*" every time
//   ACTION       kill (SIGKILL to itself), stop (SIGSTOP to itself), spin (the thread never goes on), exit (status 70),
//                throw (an exception, as where memory runs out), delay=MS, delay~MS[@SEED] (0 to MS, drawn from node,
//                phase, count and seed), flip (one bit of what the process keeps; only in kFlipPhase)
//
// Without TROUPE_FAULTS a point costs one load. Points belong to the node that the thread was named for; a thread
// without a name passes none. Any thread.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace troupe {

struct FaultPhase {
  std::string_view name;
  std::string_view role;  // who passes it; "*" all
  std::string_view what;
};

inline constexpr std::array kFaultPhases{
    FaultPhase{"start", "*", "the process has begun, nobody can ask it yet"},
    FaultPhase{"load", "*", "it answers to its name and is about to load"},
    FaultPhase{"idle", "*", "a round of the serving loop without work"},
    FaultPhase{"request", "*", "a request has arrived, nothing is done about it yet"},
    FaultPhase{"reply", "*", "the answer is computed and not yet sent"},
    FaultPhase{"message", "*", "a letter is about to be sent"},
    FaultPhase{"generate", "actor", "a decode step"},
    FaultPhase{"weights", "actor", "a published version is known, its bytes are not read"},
    FaultPhase{"weights.taken", "actor", "it samples from the new version, nobody knows yet"},
    FaultPhase{"update", "learner", "a batch is about to be trained on"},
    FaultPhase{"microbatch", "learner", "the loss of some of a batch is about to be computed"},
    FaultPhase{"updated", "learner", "the optimizer has stepped, nobody knows yet"},
    FaultPhase{"publish", "learner", "a version is about to be published"},
    FaultPhase{"collective", "learner", "an operation of the whole group is about to begin"},
    FaultPhase{"checkpoint.write", "learner", "some of a checkpoint's bytes are about to be written"},
    FaultPhase{"checkpoint.sync", "learner", "a file of a checkpoint is written and not synced"},
    FaultPhase{"checkpoint.rename", "learner", "a checkpoint is whole and does not have its name"},
    FaultPhase{"checkpoint.renamed", "learner", "a checkpoint has its name, its folder is not synced"},
    FaultPhase{"journal.write", "conductor", "a record is about to be written"},
    FaultPhase{"journal.sync", "conductor", "a record is written and not synced"},
    FaultPhase{"journal.synced", "conductor", "a record is durable, its update is not asked for"}};

constexpr bool is_fault_phase(std::string_view name) {
  for (const FaultPhase& phase : kFaultPhases)
    if (phase.name == name) return true;
  return false;
}

// Where a bit of the weights can be flipped.
inline constexpr std::string_view kFlipPhase = "updated";

enum class FaultAction { kKill, kStop, kSpin, kExit, kFlip, kThrow, kDelay, kRandomDelay };

struct Fault {
  std::string node;          // "*", a role or an instance
  uint64_t incarnation = 1;  // 0: all
  std::string phase;
  uint64_t count = 1;  // 0: every passage
  FaultAction action = FaultAction::kKill;
  std::chrono::milliseconds delay{0};
  uint64_t seed = 0;
};

// Throws std::invalid_argument naming the fault that can't be read, and what was expected.
std::vector<Fault> parse_faults(std::string_view text);

// What a process is to suffer, in place of what it was; counts begin anew. Before the threads that pass points.
void ask_for_faults(std::vector<Fault> faults);
// The same from TROUPE_FAULTS; nothing when it is unset. Throws as parse_faults does.
void ask_for_faults_of_environment();

// The calling thread's points are those of this node from now on.
void name_fault_points(std::string_view node, uint64_t incarnation);

namespace detail {
inline std::atomic<bool> faults_asked{false};
void pass_fault_point(std::string_view phase, const std::function<void()>& flip = {});
}  // namespace detail

// A phase's name, checked when it is compiled.
class FaultPhaseName {
 public:
  consteval FaultPhaseName(const char* name) : name_(name) {
    if (!is_fault_phase(name_)) throw "not in kFaultPhases";
  }
  constexpr std::string_view text() const { return name_; }

 private:
  std::string_view name_;
};

inline void fault_point(FaultPhaseName phase) {
  if (detail::faults_asked.load(std::memory_order_relaxed)) detail::pass_fault_point(phase.text());
}

// kFlipPhase: `flip` changes one bit of the weights.
template <class Flip>
void fault_point(FaultPhaseName phase, const Flip& flip) {
  if (detail::faults_asked.load(std::memory_order_relaxed)) detail::pass_fault_point(phase.text(), flip);
}

}  // namespace troupe
