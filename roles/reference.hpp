// The frozen policy. Scores tokens; never generates, never trains. The same engine and packing as the learner's, so the
// KL to an untrained learner is exactly zero.
// Single-threaded: the runner calls one handler at a time.
#pragma once

#include <optional>

#include "actors/runner.hpp"
#include "core/train/engine.hpp"
#include "roles/setting.hpp"

namespace troupe {

class Reference {
 public:
  using Face = ReferenceFace;

  struct Config {
    std::string model;  // "": the topology's
    ComputeDType dtype = ComputeDType::kBF16;
    int64_t micro_batch_tokens = 512;
    static constexpr std::tuple kFields{Field{"model", &Config::model}, Field{"dtype", &Config::dtype},
                                        Field{"micro_batch_tokens", &Config::micro_batch_tokens}};
  };

  Reference(const RoleSetting& setting, Context& context);

  // log p(answer token | what precedes it): packed int32 [S], [B], [B] -> float32 [sum T].
  AnswerLogProbs handle(const LogProbs& m);

 private:
  Context& context_;
  std::optional<TrainEngine> engine_;
};
static_assert(Serves<Reference, ReferenceFace>);

}  // namespace troupe
