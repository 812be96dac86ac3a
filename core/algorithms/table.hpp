// The algorithms by name. Adding one means its own file pair and one line in table.cpp.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "core/algorithms/advantages.hpp"
#include "core/algorithms/loss_batch.hpp"

namespace troupe {

class JsonPath;  // core/config.hpp

// What roles ask of an algorithm; its settings are bound in. Functions are pure and thread-safe.
struct Algorithm {
  std::string name;
  bool needs_reference = false;  // batches must carry reference log-probabilities
  bool needs_entropy = false;    // batches must carry entropies (with gradient when entropy_in_loss)
  bool entropy_in_loss = false;
  bool scale_needs_entropy = false;  // `scale` too: a pass without gradient over the update comes first
  std::function<GroupAdvantages(const GroupRewards&)> advantages;      // conductor
  std::function<LossScale(const LossBatch&)> scale;                    // learner, once per update
  std::function<LossResult(const LossBatch&, const LossScale&)> loss;  // learner, per micro-batch
};

// `config` is the topology's "algorithm" object: {"type": "grpo", settings...}. Throws std::invalid_argument naming the
// path under `where`: a missing or unknown type (with the known ones), an unknown key, a value that makes no sense.
Algorithm make_algorithm(const nlohmann::json& config, const JsonPath& where);

std::vector<std::string_view> algorithm_names();

}  // namespace troupe
