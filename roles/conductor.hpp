// Plays a run: the control loop (control_loop.hpp) with what makes it one of language models: prompts and tokenizer,
// evaluation, metrics, summary, report. Started again (by the supervisor, or by `troupe resume`) it goes on from the
// journal and from what it had written.
// Single-threaded: the runner calls run().
#pragma once

#include <optional>

#include "core/metrics/run_metrics.hpp"
#include "roles/conductor_config.hpp"
#include "roles/control_loop.hpp"
#include "roles/evaluation.hpp"
#include "roles/setting.hpp"

namespace troupe {

class Conductor {
 public:
  using Config = ConductorConfig;

  Conductor(const RoleSetting& setting, Context& context);
  void run(Context& context);

 private:
  std::vector<TokenizedPrompt> read(const std::string& file) const;
  void end_step(uint64_t step, MetricValues metrics);
  void evaluate(const std::string& key);
  void finish();

  const Config config_;
  const RoleSetting setting_;
  Context& context_;
  const Tokenizer tokenizer_;
  const std::optional<RuleSet> rules_;  // of the reward, unless it is external
  ControlLoop loop_;
  std::optional<Evaluation> evaluation_;
  std::optional<RunMetrics> metrics_;
};

}  // namespace troupe
