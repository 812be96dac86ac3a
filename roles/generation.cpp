#include "roles/generation.hpp"

namespace troupe {
namespace {

// An actor that is stale again after this many refreshes in a row dies faster than it can be fed.
constexpr int kMaxRefreshes = 10;

}  // namespace

void Generation::ask(Open& open) {
  open.pending = actors_[open.actor].ask(
      open.request, {.deadline = deadline_, .what = "generate draw " + std::to_string(open.request.draw)});
}

void Generation::start(const Generate& request) {
  open_.push_back({.request = request, .actor = request.draw % actors_.size(), .pending = {}});
  ask(open_.back());
}

std::optional<Rollouts> Generation::take() {
  for (auto it = open_.begin(); it != open_.end(); ++it) {
    if (!it->pending.ready()) continue;
    try {
      Rollouts answered = it->pending.get();
      if (answered.draw != it->request.draw)
        throw std::runtime_error(actors_[it->actor].peer() + " answered draw " + std::to_string(answered.draw) +
                                 " to draw " + std::to_string(it->request.draw));
      open_.erase(it);
      return answered;
    } catch (const RemoteFailure& failure) {
      if (!failure.is(failure_code::kStaleWeights) || ++it->refreshed > kMaxRefreshes) throw;
      bring_up_to_date_(it->actor);
      ask(*it);
    }
  }
  return std::nullopt;
}

void Generation::add_slots(std::vector<std::shared_ptr<AnswerSlot>>& out) const {
  for (const Open& open : open_) out.push_back(open.pending.slot());
}

}  // namespace troupe
