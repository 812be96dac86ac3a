// A cast for tests of the launcher: the five roles with small settings of their own, and an algorithm "grpo".
#pragma once

#include "launcher/topology.hpp"
#include "tests/core/metrics/scratch_folder.hpp"

namespace troupe {

struct PretendConductor {
  Required<int64_t> steps;
  int64_t step_ms = 1;
  static constexpr std::tuple kFields{Field{"steps", &PretendConductor::steps},
                                      Field{"step_ms", &PretendConductor::step_ms}};
};
TROUPE_FIELDS_COMPLETE(PretendConductor);

struct PretendLearner {
  double lr = 1e-6;
  int64_t micro_batch = 8;
  static constexpr std::tuple kFields{Field{"lr", &PretendLearner::lr},
                                      Field{"micro_batch", &PretendLearner::micro_batch}};
};
TROUPE_FIELDS_COMPLETE(PretendLearner);

struct PretendActor {
  int64_t deaths = 0;  // dies right after its start as often as this
  static constexpr std::tuple kFields{Field{"deaths", &PretendActor::deaths}};
};
TROUPE_FIELDS_COMPLETE(PretendActor);

struct PretendOther {
  std::string model;
  static constexpr std::tuple kFields{Field{"model", &PretendOther::model}};
};
TROUPE_FIELDS_COMPLETE(PretendOther);

struct PretendGrpo {
  Required<std::string> type;
  double kl_beta = 0;
  static constexpr std::tuple kFields{Field{"type", &PretendGrpo::type}, Field{"kl_beta", &PretendGrpo::kl_beta}};
};
TROUPE_FIELDS_COMPLETE(PretendGrpo);

template <class Config>
Json filled(const Json& config, const JsonPath& where) {
  return Json::parse(to_json(from_json<Config>(config, where)).dump());
}

inline const Vocabulary& pretend_cast() {
  static const Vocabulary words{{{"conductor", "asks the others", filled<PretendConductor>},
                                 {"actor", "generates", filled<PretendActor>},
                                 {"learner", "trains", filled<PretendLearner>},
                                 {"reference", "scores", filled<PretendOther>},
                                 {"reward", "rewards", filled<PretendOther>}},
                                [](const Json& algorithm, const JsonPath& where) {
                                  return from_json<PretendGrpo>(algorithm, where).kl_beta > 0;
                                }};
  return words;
}

// A topology that is good, for tests to spoil. Its model and prompts must be made beside it: lay_out does it.
inline Json good_topology() {
  return Json::parse(R"({
    "run": {"seed": 3, "folder": "runs"},
    "model": "model",
    "algorithm": {"type": "grpo", "kl_beta": 0.04},
    "prompts": {"file": "train.jsonl", "held_out": "held_out.jsonl"},
    "sampling": {"temperature": 0.7, "max_new_tokens": 16},
    "nodes": [
      {"name": "reference"},
      {"name": "reward"},
      {"name": "learner", "config": {"lr": 0.001}},
      {"name": "actor", "count": 2},
      {"name": "conductor", "on_failure": "stop", "config": {"steps": 5}}
    ]})");
}

inline void lay_out(const std::filesystem::path& folder) {
  std::filesystem::create_directory(folder / "model");
  write_text(folder / "model/config.json", "{}");
  for (const char* name : {"train.jsonl", "held_out.jsonl"})
    write_text(folder / name, R"({"prompt": "1+1", "answer": "2"})"
                              "\n");
}

}  // namespace troupe
