// Generates with the weights it was last given; never trains. Requests are answered in any order as they finish;
// between two decode steps the runner hands in what has arrived: prompts, cancellations, new weights. Single-threaded:
// the runner calls everything.
#pragma once

#include <deque>
#include <map>
#include <optional>

#include "actors/runner.hpp"
#include "actors/shared_memory.hpp"
#include "core/generate/engine.hpp"
#include "core/text/tokenizer.hpp"
#include "roles/setting.hpp"

namespace troupe {

class Actor {
 public:
  using Face = ActorFace;

  struct Config {
    std::string model;  // "": the topology's
    ComputeDType dtype = ComputeDType::kBF16;
    int64_t max_batch = 64;         // answers that run at the same time
    int64_t max_kv_tokens = 32768;  // room of the key-value cache
    std::string kernels = "auto";   // of the CPU: "auto", "amx", "avx512bf16", "avx512", "avx2", "portable"
    bool plain_kernels = false;     // the tensor library's operations instead of our own kernels
    static constexpr std::tuple kFields{
        Field{"model", &Config::model},         Field{"dtype", &Config::dtype},
        Field{"max_batch", &Config::max_batch}, Field{"max_kv_tokens", &Config::max_kv_tokens},
        Field{"kernels", &Config::kernels},     Field{"plain_kernels", &Config::plain_kernels}};
  };

  // Loads the base model: policy version 0.
  Actor(const RoleSetting& setting, Context& context);

  // Refused with kStaleWeights when another policy version is in use than asked for, or an older one where a newer one
  // would do. A draw that is being generated already goes on, its answer to whoever asked last.
  void handle(const Generate& m, Responder<Generate> responder);
  Ack handle(const CancelGenerate& m);
  // Verifies every chunk before it is used, and then that the weights in use are these, before a token is sampled from
  // them: not proven, it fails and nothing is generated until a version is. A version it already holds is acknowledged
  // at once. Answers under way go on with the new weights, but for those that must be by one version.
  WeightsTaken handle(const TakeWeights& m);
  bool work();

 private:
  struct Waiting {
    Responder<Generate> responder;
    bool exact;  // all tokens by one version
  };
  std::shared_ptr<SharedRegion> fetch_chunks(const WeightManifest& manifest);
  void withdraw(bool all);  // or what is to be by one version alone
  void reply(const Finished& finished);

  const Config config_;
  const RoleSetting setting_;
  Context& context_;
  std::optional<Tokenizer> tokenizer_;
  std::optional<Engine> engine_;
  bool proven_ = true;  // the engine's weights are those of version_
  uint64_t version_ = 0;
  std::string digest_;                   // of the version in use; "" for the base model
  std::map<uint64_t, Waiting> waiting_;  // by draw
};
static_assert(Serves<Actor, ActorFace>);

}  // namespace troupe
