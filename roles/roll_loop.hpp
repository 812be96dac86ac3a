// The first of the conductor's two loops: from prompts to the batch of a step.
//   prompts -> actors: Generate -> reward model: Score (each group as it comes)
//           -> reference: LogProbs (the whole step) -> advantages -> Experience
//
// pump() moves whatever can move and never waits; the conductor waits on add_slots(). Several steps may be open at once
// (asynchronous runs); a synchronous run opens one. Single-threaded.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "actors/handle.hpp"
#include "core/algorithms/table.hpp"
#include "core/metrics/metric_names.hpp"
#include "core/metrics/metrics_log.hpp"
#include "roles/conductor_config.hpp"
#include "roles/generation.hpp"
#include "roles/prompt_source.hpp"
#include "roles/topology.hpp"

namespace troupe {

// A step's batch and what is known of how it came about.
struct Rolled {
  Experience batch;
  MetricValues metrics;  // rewards, lengths, seconds of the phases
};

class RollLoop {
 public:
  struct Roles {
    std::vector<Handle<ActorFace>> actors;
    Handle<RewardFace> reward;
    std::optional<Handle<ReferenceFace>> reference;
  };
  RollLoop(const Topology& topology, const ConductorConfig& config, Algorithm algorithm,
           std::vector<TokenizedPrompt> prompts, Roles roles, const Context& context,
           std::function<void(std::size_t)> bring_up_to_date);

  // Asks the actors for the answers of `step`: all by `version` in a deterministic run, by it or newer ones in a
  // free-running one.
  void start(uint64_t step, uint64_t version);
  void pump();
  // The batch of `step` once it is complete.
  std::optional<Rolled> take(uint64_t step);
  // Answers of an open step are still being generated.
  bool generating() const { return generation_.open() > 0; }
  void add_slots(std::vector<std::shared_ptr<AnswerSlot>>& out) const;
  // One short line for people: "step 3: 12 of 16 prompts answered".
  std::string progress() const;

 private:
  struct Group {
    Rollouts rollouts;
    Pending<Scores> asked;
    std::optional<Scores> scores;
  };
  struct Step {
    uint64_t version = 0;              // asked for
    std::map<uint64_t, Group> groups;  // by draw: the batch's order does not depend on who answered first
    std::size_t scored = 0;
    Pending<AnswerLogProbs> reference;
    std::optional<Rolled> rolled;
    Instant started, generated, rewarded;
  };
  const TokenizedPrompt& prompt_of(uint64_t draw) const;
  uint64_t step_of(uint64_t draw) const { return draw / static_cast<uint64_t>(config_.prompts_per_update) + 1; }
  void take_rollouts();
  void take_scores(Step& step);
  void ask_reference(uint64_t number, Step& step);
  void finish(uint64_t number, Step& step);
  void check_versions(const Rollouts& rollouts, uint64_t asked) const;
  Experience assemble(uint64_t number, const Step& step) const;
  GroupAdvantages advantages_of(const Step& step) const;

  const Topology& topology_;
  const Context& context_;
  const ConductorConfig config_;
  const Algorithm algorithm_;
  const std::vector<TokenizedPrompt> prompts_;
  const PromptOrder order_;
  Handle<RewardFace> reward_;
  std::optional<Handle<ReferenceFace>> reference_;
  Millis deadline_;
  Generation generation_;
  std::map<uint64_t, Step> steps_;  // open ones
  Instant last_generated_{};        // when a step's answers were last complete
};

// What can be told from a step's batch alone: rewards, lengths, staleness.
MetricValues metrics_of(const Experience& batch);

// Throws std::runtime_error naming the node when there are not as many finite scores as answers.
void check_scores(const Scores& scores, std::size_t expected, const std::string& node);

}  // namespace troupe
