// One line per role: the messages it accepts. A role that misses a handler, or an ask that a face lacks, does not
// compile. Status and Stop are served by the runner for every role and stand in no face.
#pragma once

#include "protocol/messages.hpp"

namespace troupe {

template <class... M>
struct Messages {};

struct ActorFace {
  using Accepts = Messages<Generate, CancelGenerate, TakeWeights>;
};
struct ReferenceFace {
  using Accepts = Messages<LogProbs>;
};
struct RewardFace {
  using Accepts = Messages<Score>;
};
struct LearnerFace {
  using Accepts = Messages<Update, LogProbs, AskState, PublishWeights, FetchChunk, Checkpoint>;
};
struct ConductorFace {
  using Accepts = Messages<>;
};
struct SupervisorFace {
  using Accepts = Messages<Heartbeat, AskRun>;
};

template <class M, class Face>
inline constexpr bool accepts = false;
template <class M, class Face>
requires requires {
  typename Face::Accepts;
}
inline constexpr bool accepts<M, Face> = []<class... A>(Messages<A...>) {
  return (std::is_same_v<M, A> || ...) || std::is_same_v<M, Status> || std::is_same_v<M, Stop>;
}(typename Face::Accepts{});

}  // namespace troupe
