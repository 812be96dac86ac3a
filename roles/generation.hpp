// Open Generate asks, answered in spite of actors that die or come back with old weights. Used by the roll loop and by
// the evaluation. Single-threaded; never blocks but to bring a replaced actor to the current weights.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <vector>

#include "actors/handle.hpp"

namespace troupe {

class Generation {
 public:
  // `bring_up_to_date` gives actor i the policy version the conductor last published; called when it answered
  // kStaleWeights.
  Generation(std::vector<Handle<ActorFace>> actors, Millis deadline, std::function<void(std::size_t)> bring_up_to_date)
      : actors_(std::move(actors)), deadline_(deadline), bring_up_to_date_(std::move(bring_up_to_date)) {}

  // The draw decides the actor, so that the same run asks the same actors.
  void start(const Generate& request);
  // An answered request, in any order; nothing when none is ready. Throws RemoteFailure for a request that failed for
  // any other reason than stale weights.
  std::optional<Rollouts> take();
  void add_slots(std::vector<std::shared_ptr<AnswerSlot>>& out) const;
  std::size_t open() const { return open_.size(); }
  std::size_t num_actors() const { return actors_.size(); }

 private:
  struct Open {
    Generate request;
    std::size_t actor;
    Pending<Rollouts> pending;
    int refreshed = 0;
  };
  void ask(Open& open);

  std::vector<Handle<ActorFace>> actors_;
  Millis deadline_;
  std::function<void(std::size_t)> bring_up_to_date_;
  std::list<Open> open_;
};

}  // namespace troupe
