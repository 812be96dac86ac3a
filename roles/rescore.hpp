// What journalled answers would have earned under other rules: their texts read back from the tokens, scored by reward
// rules, and advantages anew. With the run's own rules and algorithm the advantages come out as they were, bit for bit.
// Single-threaded.
#pragma once

#include <optional>
#include <vector>

#include "core/algorithms/table.hpp"
#include "core/data/prompts.hpp"
#include "core/rewards/rules.hpp"
#include "roles/prompt_source.hpp"
#include "roles/topology.hpp"

namespace troupe {

class Rescorer {
 public:
  // The prompts are those of `topology`. Without rules the journalled rewards stay and advantages alone are made anew.
  // Throws as the parts do: a prompt file or model that can't be read.
  Rescorer(const Topology& topology, Algorithm algorithm, std::optional<RuleSet> rules);

  // The batch with other rewards, advantages, keep and loss_mask. Throws std::runtime_error when the prompts are not
  // those that the batch was made from, std::invalid_argument when the algorithm needs the parts of a score and there
  // are no rules.
  Experience operator()(const Experience& batch) const;

 private:
  GroupRewards rewards_of(const Experience& batch) const;

  const Topology topology_;
  const Algorithm algorithm_;
  const std::optional<RuleSet> rules_;
  const Tokenizer tokenizer_;
  const std::vector<int64_t> eos_;
  const std::vector<TokenizedPrompt> prompts_;
  const PromptOrder order_;
};

}  // namespace troupe
