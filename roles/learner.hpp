// Owns the trainable policy and its optimizer; publishes weight versions; writes checkpoints.
//
// A step is one Update: the batch of one roll, trained on for `epochs` passes of `mini_batches` optimizer steps.
// Updates are applied once and in order: a recent one asked again gets its earlier answer, a later one than the next
// fails with kBehind and the conductor feeds the journalled steps since (learner_progress.hpp). Started again, it goes
// on from the newest checkpoint. Several learners train as one (learner_group.hpp): the first is asked, it asks the
// others; each computes its share of every batch, and gradients are summed. Single-threaded: the runner calls one
// handler at a time.
#pragma once

#include <map>
#include <memory>
#include <optional>

#include "actors/runner.hpp"
#include "actors/shared_memory.hpp"
#include "core/algorithms/table.hpp"
#include "core/train/engine.hpp"
#include "roles/learner_group.hpp"
#include "roles/learner_progress.hpp"
#include "roles/setting.hpp"

namespace troupe {

struct LoraSection {
  int64_t rank = 0;  // 0: full fine-tuning
  double alpha = 16.0;
  std::vector<std::string> target_modules = LoraConfig().target_modules;
  static constexpr std::tuple kFields{Field{"rank", &LoraSection::rank}, Field{"alpha", &LoraSection::alpha},
                                      Field{"target_modules", &LoraSection::target_modules}};
};
TROUPE_FIELDS_COMPLETE(LoraSection);

class Learner {
 public:
  using Face = GroupLearnerFace;

  struct Config {
    std::string model;  // "": the topology's
    ComputeDType dtype = ComputeDType::kBF16;
    double lr = 1e-6;
    double beta1 = 0.9;
    double beta2 = 0.999;
    double eps = 1e-8;
    double weight_decay = 0.0;
    double max_grad_norm = 1.0;
    std::string schedule = "constant";  // "constant", "linear", "cosine"
    int64_t warmup_steps = 0;
    int64_t schedule_steps = 0;  // optimizer steps at which linear and cosine reach 0
    int64_t epochs = 1;          // passes over each batch
    int64_t mini_batches = 1;    // optimizer steps of one pass
    int64_t micro_batch_tokens = 512;
    bool gradient_checkpointing = false;
    int64_t keep_checkpoints = 3;
    int64_t zero = 0;  // stage of ZeRO among several learners: 1 cuts the optimizer's state among them
    LoraSection lora;
    static constexpr std::tuple kFields{Field{"model", &Config::model},
                                        Field{"dtype", &Config::dtype},
                                        Field{"lr", &Config::lr},
                                        Field{"beta1", &Config::beta1},
                                        Field{"beta2", &Config::beta2},
                                        Field{"eps", &Config::eps},
                                        Field{"weight_decay", &Config::weight_decay},
                                        Field{"max_grad_norm", &Config::max_grad_norm},
                                        Field{"schedule", &Config::schedule},
                                        Field{"warmup_steps", &Config::warmup_steps},
                                        Field{"schedule_steps", &Config::schedule_steps},
                                        Field{"epochs", &Config::epochs},
                                        Field{"mini_batches", &Config::mini_batches},
                                        Field{"micro_batch_tokens", &Config::micro_batch_tokens},
                                        Field{"gradient_checkpointing", &Config::gradient_checkpointing},
                                        Field{"keep_checkpoints", &Config::keep_checkpoints},
                                        Field{"zero", &Config::zero},
                                        Field{"lora", &Config::lora}};
  };

  Learner(const RoleSetting& setting, Context& context);

  Updated handle(const Update& m);
  AnswerLogProbs handle(const LogProbs& m);
  LearnerState handle(const AskState& m);
  PublishedWeights handle(const PublishWeights& m);
  WeightChunk handle(const FetchChunk& m);
  Checkpointed handle(const Checkpoint& m);
  Presence handle(const AskPresence& m);
  Ack handle(const JoinGroup& m);
  Ack handle(const TrainShare& m);
  Ack handle(const GatherState& m);

 private:
  // What a whole batch looks like to the loss; N answer tokens, B sequences.
  struct Batch;
  Batch read_batch(const Experience& experience) const;
  void train(const Batch& mini_batch, double temperature, LossMetrics& metrics, Updated& out);
  Updated apply_update(const Update& m);
  Updated update_together(const Update& m);
  TokenOutputs outputs_of(const Batch& batch, double temperature);
  // Of a group: the leader's way to do something together with the others, and everybody's way into a generation.
  void need_group();
  void regroup();
  void join(uint64_t generation);
  Agreement agree();
  void need_agreement();
  void take_state(int root);
  template <class Reply, class Own>
  void together(std::vector<Pending<Reply>> others, const Own& own);
  template <class Share>
  Ack take_part(uint64_t generation, const Share& share);
  StateDict whole_state();
  void load();  // the model as the run starts with it, or as the newest checkpoint has it
  void load_newest(const std::filesystem::path& folder);
  void export_policy(const std::filesystem::path& folder) const;
  struct Published {
    WeightManifest manifest;
    std::shared_ptr<SharedRegion> region;
    double seconds_checksum;  // with the copying, where it was a copy
  };
  MemorySource compute_memory();
  Published published_version(uint64_t version, const std::string& dtype);
  std::string region_name(uint64_t version) const;
  void withdraw_below(uint64_t version);

  const Config config_;
  const RoleSetting setting_;
  Context& context_;
  Algorithm algorithm_;
  DecoderConfig model_config_;
  std::optional<LearnerGroup> group_;  // none: a single learner
  std::optional<TrainEngine> engine_;
  LearnerProgress progress_;
  bool whole_ = true;                      // false: within the optimizer steps of a batch
  bool fresh_ = true;                      // has not been in a group
  uint64_t divergences_ = 0;               // groups in which two survivors stood at different steps
  uint64_t disagreements_ = 0;             // times that learners at one step had different weights
  std::optional<uint64_t> disagreed_at_;   // the newest one's step
  std::unique_ptr<RegionServer> regions_;  // null: one process, regions are handed over by pointer
  // That the engine computes from, in bfloat16; published as it is, then the next update takes another. Null: it
  // computes from memory of its own.
  std::shared_ptr<SharedRegion> compute_region_;
  std::map<uint64_t, std::shared_ptr<SharedRegion>> memory_;  // of the versions that are kept
};
static_assert(Serves<Learner, LearnerFace> && Serves<Learner, GroupLearnerFace>);

}  // namespace troupe
