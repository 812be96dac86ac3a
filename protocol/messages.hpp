// Every message with its reply, in the order of a rollout. A message is an aggregate with kName (its type on the wire),
// Reply (bound at compile time) and kFields. Replies are nouns and carry a kName too.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "protocol/types.hpp"

namespace troupe {

struct Ack {
  static constexpr std::string_view kName = "ack";
  uint64_t version = 0;  // what the acknowledged request brought the role to; 0 where it has no version
  static constexpr std::tuple kFields{Field{"version", &Ack::version}};
};
TROUPE_FIELDS_COMPLETE(Ack);

// ---- every role ---------------------------------------------------------------------------------------------------

struct RoleStatus {  // reply to Status; answered by the mailbox's own thread, also while a handler computes
  static constexpr std::string_view kName = "role_status";
  std::string node;             // "actor/0"
  uint64_t incarnation = 0;     // process starts of this node within the run
  std::string phase;            // "load", "idle", "generate", "update", ... as the working thread last said
  uint64_t progress = 0;        // beats of the working thread; standing still past the phase's lease means a hang
  std::string detail;           // one short line for people, "step 12, 31 of 64 answers"
  uint64_t dropped_frames = 0;  // malformed or fenced frames seen so far
  static constexpr std::tuple kFields{
      Field{"node", &RoleStatus::node},     Field{"incarnation", &RoleStatus::incarnation},
      Field{"phase", &RoleStatus::phase},   Field{"progress", &RoleStatus::progress},
      Field{"detail", &RoleStatus::detail}, Field{"dropped_frames", &RoleStatus::dropped_frames}};
};
TROUPE_FIELDS_COMPLETE(RoleStatus);

struct Status {  // anyone -> any role
  static constexpr std::string_view kName = "status";
  using Reply = RoleStatus;
  static constexpr std::tuple<> kFields{};
};

struct Stop {  // launcher -> any role: finish what is promised, save what must be saved, exit
  static constexpr std::string_view kName = "stop";
  using Reply = Ack;
  std::string reason;
  static constexpr std::tuple kFields{Field{"reason", &Stop::reason}};
};
TROUPE_FIELDS_COMPLETE(Stop);

// ---- 1 generate: conductor -> actor -------------------------------------------------------------------------------

struct Rollouts {  // G answers to one prompt, packed; N = sum of lengths
  static constexpr std::string_view kName = "rollouts";
  uint64_t draw = 0;
  Attachment tokens;               // int32 [N], EOS included when it ended the answer
  Attachment lengths;              // int32 [G]
  Attachment logprobs;             // float32 [N], of logits / temperature
  Attachment versions;             // int32 [N]
  Attachment finish;               // uint8 [G], FinishReason
  std::vector<std::string> texts;  // [G], decoded without special tokens, cut before a stop string
  static constexpr std::tuple kFields{Field{"draw", &Rollouts::draw},         Field{"tokens", &Rollouts::tokens},
                                      Field{"lengths", &Rollouts::lengths},   Field{"logprobs", &Rollouts::logprobs},
                                      Field{"versions", &Rollouts::versions}, Field{"finish", &Rollouts::finish},
                                      Field{"texts", &Rollouts::texts}};
};
TROUPE_FIELDS_COMPLETE(Rollouts);

struct Generate {
  static constexpr std::string_view kName = "generate";
  using Reply = Rollouts;
  uint64_t seed = 0;  // the run's seed
  uint64_t draw = 0;  // counts prompts drawn in the run; with seed, sample and position it decides every random number
  uint64_t num_samples = 1;     // G; the prompt is computed once for all of them
  uint64_t policy_version = 0;  // the actor must hold this version, else Failure kStaleWeights
  bool exact = true;            // all tokens by this version: swapped meanwhile, it fails with kStaleWeights
                                // false: a newer one serves as well, tokens may be by several
  Attachment prompt;            // int32 [P]
  Sampling sampling;
  static constexpr std::tuple kFields{Field{"seed", &Generate::seed},
                                      Field{"draw", &Generate::draw},
                                      Field{"num_samples", &Generate::num_samples},
                                      Field{"policy_version", &Generate::policy_version},
                                      Field{"exact", &Generate::exact},
                                      Field{"prompt", &Generate::prompt},
                                      Field{"sampling", &Generate::sampling}};
};
TROUPE_FIELDS_COMPLETE(Generate);

struct CancelGenerate {  // the draw's unfinished answers are dropped; their Generate fails with kCancelled
  static constexpr std::string_view kName = "cancel_generate";
  using Reply = Ack;
  uint64_t draw = 0;
  static constexpr std::tuple kFields{Field{"draw", &CancelGenerate::draw}};
};
TROUPE_FIELDS_COMPLETE(CancelGenerate);

// ---- 2 score: conductor -> reference, learner ----------------------------------------------------------------------

struct AnswerLogProbs {
  static constexpr std::string_view kName = "answer_logprobs";
  Attachment logprobs;  // float32 [sum T_i]
  uint64_t policy_version = 0;
  static constexpr std::tuple kFields{Field{"logprobs", &AnswerLogProbs::logprobs},
                                      Field{"policy_version", &AnswerLogProbs::policy_version}};
};
TROUPE_FIELDS_COMPLETE(AnswerLogProbs);

struct LogProbs {  // log p(answer token | what precedes it), logits divided by temperature
  static constexpr std::string_view kName = "logprobs";
  using Reply = AnswerLogProbs;
  Attachment tokens;            // int32 [sum(P_i + T_i)]
  Attachment prompt_lengths;    // int32 [B]
  Attachment response_lengths;  // int32 [B]
  double temperature = 1.0;
  static constexpr std::tuple kFields{
      Field{"tokens", &LogProbs::tokens}, Field{"prompt_lengths", &LogProbs::prompt_lengths},
      Field{"response_lengths", &LogProbs::response_lengths}, Field{"temperature", &LogProbs::temperature}};
};
TROUPE_FIELDS_COMPLETE(LogProbs);

// ---- 3 reward: conductor -> reward model ---------------------------------------------------------------------------

struct Scores {
  static constexpr std::string_view kName = "scores";
  std::vector<double> scores;                        // [B], finite: a NaN or infinity is refused on arrival
  std::map<std::string, std::vector<double>> parts;  // each rule's own values, [B] each; for the metrics
  static constexpr std::tuple kFields{Field{"scores", &Scores::scores}, Field{"parts", &Scores::parts}};
};
TROUPE_FIELDS_COMPLETE(Scores);

struct Score {
  static constexpr std::string_view kName = "score";
  using Reply = Scores;
  std::string prompt;                  // the user's text, as in the data file
  std::string answer;                  // the data file's expected answer, "" if it has none
  std::vector<std::string> responses;  // [B]
  std::vector<int64_t> num_tokens;     // [B] length of each response
  std::vector<bool> truncated;         // [B] true when the response ran into max_new_tokens
  int64_t max_new_tokens = 0;
  static constexpr std::tuple kFields{
      Field{"prompt", &Score::prompt},       Field{"answer", &Score::answer},
      Field{"responses", &Score::responses}, Field{"num_tokens", &Score::num_tokens},
      Field{"truncated", &Score::truncated}, Field{"max_new_tokens", &Score::max_new_tokens}};
};
TROUPE_FIELDS_COMPLETE(Score);

// ---- 4 update: conductor -> learner --------------------------------------------------------------------------------

struct Updated {
  static constexpr std::string_view kName = "updated";
  uint64_t step = 0;                      // steps applied so far; the new policy version
  std::map<std::string, double> metrics;  // loss, kl, entropy, grad_norm, lr, clip_fraction, ...
  static constexpr std::tuple kFields{Field{"step", &Updated::step}, Field{"metrics", &Updated::metrics}};
};
TROUPE_FIELDS_COMPLETE(Updated);

// Applied once and in order: for one of the newest steps applied (kAnswersKept of them) the earlier reply is given
// again; for any other than the next the learner fails with kBehind and the conductor feeds it the journalled steps
// since.
inline constexpr uint64_t kAnswersKept = 16;
struct Update {
  static constexpr std::string_view kName = "update";
  using Reply = Updated;
  Experience batch;
  double temperature = 1.0;  // that the batch was sampled at
  // Versions from this one on (but for 0, the base model) that the learner must have published and still keep, for
  // after the update it can give them no more; else kBehind too: it is not the process that published them.
  uint64_t keep_from = std::numeric_limits<uint64_t>::max();
  static constexpr std::tuple kFields{Field{"batch", &Update::batch}, Field{"temperature", &Update::temperature},
                                      Field{"keep_from", &Update::keep_from}};
};
TROUPE_FIELDS_COMPLETE(Update);

struct LearnerState {
  static constexpr std::string_view kName = "learner_state";
  uint64_t step = 0;            // optimizer steps applied
  uint64_t journal_offset = 0;  // that its newest checkpoint covers
  uint64_t oldest = 0;          // version that it can still publish: one that it keeps, or its current one
  static constexpr std::tuple kFields{Field{"step", &LearnerState::step},
                                      Field{"journal_offset", &LearnerState::journal_offset},
                                      Field{"oldest", &LearnerState::oldest}};
};
TROUPE_FIELDS_COMPLETE(LearnerState);

struct AskState {
  static constexpr std::string_view kName = "ask_state";
  using Reply = LearnerState;
  static constexpr std::tuple<> kFields{};
};

// ---- 5 publish: conductor -> learner, then conductor -> actors ------------------------------------------------------

struct PublishedWeights {
  static constexpr std::string_view kName = "published_weights";
  WeightManifest manifest;
  double seconds_checksum = 0;  // spent on their checksums, with the copying where they are copied
  static constexpr std::tuple kFields{Field{"manifest", &PublishedWeights::manifest},
                                      Field{"seconds_checksum", &PublishedWeights::seconds_checksum}};
};
TROUPE_FIELDS_COMPLETE(PublishedWeights);

// The learner's current version, or one that it published and keeps: then the earlier reply is given again. Any other
// fails with kBehind.
struct PublishWeights {
  static constexpr std::string_view kName = "publish_weights";
  using Reply = PublishedWeights;
  uint64_t version = 0;
  std::string dtype;       // what the actors compute in
  bool same_host = true;   // hand over by memory file; else chunks are fetched
  uint64_t keep_from = 0;  // published versions below this one are not needed any more
  static constexpr std::tuple kFields{
      Field{"version", &PublishWeights::version}, Field{"dtype", &PublishWeights::dtype},
      Field{"same_host", &PublishWeights::same_host}, Field{"keep_from", &PublishWeights::keep_from}};
};
TROUPE_FIELDS_COMPLETE(PublishWeights);

inline constexpr std::string_view kBaseLocation = "base:";  // version 0, which the actor loads from its model file

struct WeightsTaken {
  static constexpr std::string_view kName = "weights_taken";
  uint64_t version = 0;       // that is sampled from
  double seconds_verify = 0;  // spent on the checksums of what was published
  double seconds_prove = 0;   // and on comparing the weights in use with it
  static constexpr std::tuple kFields{Field{"version", &WeightsTaken::version},
                                      Field{"seconds_verify", &WeightsTaken::seconds_verify},
                                      Field{"seconds_prove", &WeightsTaken::seconds_prove}};
};
TROUPE_FIELDS_COMPLETE(WeightsTaken);

struct TakeWeights {  // into the back buffer, every chunk verified, then swapped in between two decode steps
  static constexpr std::string_view kName = "take_weights";
  using Reply = WeightsTaken;
  WeightManifest manifest;
  static constexpr std::tuple kFields{Field{"manifest", &TakeWeights::manifest}};
};
TROUPE_FIELDS_COMPLETE(TakeWeights);

struct WeightChunk {
  static constexpr std::string_view kName = "weight_chunk";
  Attachment bytes;  // uint8 [n]
  static constexpr std::tuple kFields{Field{"bytes", &WeightChunk::bytes}};
};
TROUPE_FIELDS_COMPLETE(WeightChunk);

struct FetchChunk {  // actor -> learner, between hosts
  static constexpr std::string_view kName = "fetch_chunk";
  using Reply = WeightChunk;
  uint64_t version = 0;
  uint64_t index = 0;
  static constexpr std::tuple kFields{Field{"version", &FetchChunk::version}, Field{"index", &FetchChunk::index}};
};
TROUPE_FIELDS_COMPLETE(FetchChunk);

// ---- 6 checkpoint: conductor -> learner ----------------------------------------------------------------------------

struct Checkpointed {
  static constexpr std::string_view kName = "checkpointed";
  std::string folder;
  uint64_t step = 0;
  static constexpr std::tuple kFields{Field{"folder", &Checkpointed::folder}, Field{"step", &Checkpointed::step}};
};
TROUPE_FIELDS_COMPLETE(Checkpointed);

struct Checkpoint {
  static constexpr std::string_view kName = "checkpoint";
  using Reply = Checkpointed;
  std::string folder;           // checkpoints/ of the run: a step-NNNNNN folder is made inside
  uint64_t step = 0;            // must be the learner's current one, else Failure kBehind
  uint64_t journal_offset = 0;  // of the last applied step's end: position and weights are one atomic set
  std::string export_folder;    // not empty: a Hugging Face folder of the policy is (also) written here
  static constexpr std::tuple kFields{Field{"folder", &Checkpoint::folder}, Field{"step", &Checkpoint::step},
                                      Field{"journal_offset", &Checkpoint::journal_offset},
                                      Field{"export_folder", &Checkpoint::export_folder}};
};
TROUPE_FIELDS_COMPLETE(Checkpoint);

// ---- heartbeats: any role -> supervisor ----------------------------------------------------------------------------

struct Heartbeat {
  static constexpr std::string_view kName = "heartbeat";
  using Reply = Ack;
  RoleStatus status;
  static constexpr std::tuple kFields{Field{"status", &Heartbeat::status}};
};
TROUPE_FIELDS_COMPLETE(Heartbeat);

// The run as the supervisor sees it: `troupe status RUN` and the live display ask for this.
struct RunStatus {
  static constexpr std::string_view kName = "run_status";
  std::string run;
  std::string state;  // "starting", "running", "stopping"
  std::vector<RoleStatus> nodes;
  std::map<std::string, uint64_t> restarts;  // by node
  static constexpr std::tuple kFields{Field{"run", &RunStatus::run}, Field{"state", &RunStatus::state},
                                      Field{"nodes", &RunStatus::nodes}, Field{"restarts", &RunStatus::restarts}};
};
TROUPE_FIELDS_COMPLETE(RunStatus);

struct AskRun {
  static constexpr std::string_view kName = "ask_run";
  using Reply = RunStatus;
  static constexpr std::tuple<> kFields{};
};

}  // namespace troupe
