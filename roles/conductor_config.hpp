// The conductor's own settings.
#pragma once

#include <string>
#include <tuple>

#include "protocol/fields.hpp"

namespace troupe {

struct EvaluationSection {
  double temperature = 0.0;  // 0: the likeliest answer
  int64_t every = 0;         // also after every so many steps; 0: before and after the run only
  std::string rule;          // the reward rule whose value 1 means right; "": every rule that judges
  static constexpr std::tuple kFields{Field{"temperature", &EvaluationSection::temperature},
                                      Field{"every", &EvaluationSection::every},
                                      Field{"rule", &EvaluationSection::rule}};
};
TROUPE_FIELDS_COMPLETE(EvaluationSection);

struct ConductorConfig {
  Required<int64_t> steps;         // updates in the whole run
  int64_t group_size = 8;          // answers to each prompt
  int64_t prompts_per_update = 8;  // prompts of one update
  // Versions that a token may lag behind the update it is trained in. 0: synchronous, every answer comes from the
  // newest policy. Above 0 the next steps are rolled while an update runs.
  int64_t max_staleness = 0;
  int64_t checkpoint_every = 20;  // steps; 0: at the end only
  bool export_model = true;       // RUN/export/ at the end: a Hugging Face folder
  EvaluationSection evaluation;
  static constexpr std::tuple kFields{Field{"steps", &ConductorConfig::steps},
                                      Field{"group_size", &ConductorConfig::group_size},
                                      Field{"prompts_per_update", &ConductorConfig::prompts_per_update},
                                      Field{"max_staleness", &ConductorConfig::max_staleness},
                                      Field{"checkpoint_every", &ConductorConfig::checkpoint_every},
                                      Field{"export_model", &ConductorConfig::export_model},
                                      Field{"evaluation", &ConductorConfig::evaluation}};
};
TROUPE_FIELDS_COMPLETE(ConductorConfig);

}  // namespace troupe
