#include "cast.hpp"

#include <ATen/ops/full.h>

#include "core/io/checkpoint.hpp"
#include "roles/control_loop.hpp"

namespace troupe::simulation {
namespace {

constexpr uint64_t kTokens = 3;  // of every answer

uint64_t mix_bytes(uint64_t hash, std::span<const std::byte> bytes) {
  for (const std::byte byte : bytes) hash = (hash ^ static_cast<uint64_t>(byte)) * 0x100000001b3u;
  return mix(hash, bytes.size());
}

uint64_t hash_of(const Experience& e) {
  uint64_t hash = e.step;
  for (const Attachment* part : {&e.tokens, &e.prompt_lengths, &e.response_lengths, &e.loss_mask, &e.behaviour_logprobs,
                                 &e.reference_logprobs, &e.versions, &e.rewards, &e.advantages})
    hash = mix_bytes(hash, part->bytes);
  for (std::size_t i = 0; i < e.draws.size(); ++i) hash = mix(hash, mix(e.draws[i], e.samples[i]));
  return hash;
}

float logprob(uint64_t hash) {
  return -static_cast<float>(hash % 5000) / 1000.0f;
}

}  // namespace

uint64_t mix(uint64_t a, uint64_t b) {
  uint64_t x = a * 0x9e3779b97f4a7c15u + b + 0x632be59bd9b4e019u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// ---- conductor ----------------------------------------------------------------------------------------------------

void direct(World& world, const RoleSetting& setting, const ConductorConfig& config, Context& context,
            Observed& observed) {
  std::vector<TokenizedPrompt> prompts(3);
  for (std::size_t i = 0; i < prompts.size(); ++i) prompts[i].ids = {static_cast<int32_t>(i), 17};
  ControlLoop loop(setting.topology, config, std::move(prompts), context, world.disk, setting.run_folder,
                   [&](uint64_t step, const MetricValues&) {
                     if (step != observed.reported + 1)
                       observed.violations.push_back("step " + std::to_string(step) + " was reported behind step " +
                                                     std::to_string(observed.reported));
                     observed.reported = step;
                   });
  loop.recover(observed.reported);
  loop.train();
  if (loop.ended() > 0) loop.checkpoint("");
}

// ---- learner ------------------------------------------------------------------------------------------------------

SimulatedLearner::SimulatedLearner(World& world, Process& process, const RoleSetting& setting, Observed& observed)
    : world_(world),
      process_(process),
      run_(setting.run_folder.filename().string()),
      observed_(observed),
      progress_(setting.instance) {
  process_.sleep(Millis(20 + world_.below(200)));
  const auto checkpoint = load_newest_checkpoint(world_.disk, setting.run_folder / "checkpoints", run_);
  if (!checkpoint) return;
  ++observed_.resumed_from_checkpoint;
  weights_ = static_cast<uint64_t>(checkpoint->parts.at("learner").at("weights").item<int64_t>());
  const uint64_t step = checkpoint->meta.step;
  progress_.begin_at(step, checkpoint->meta.journal_offset, {{step, answer_of(step)}});
  world_.tell(process_.connection() + " loaded step " + std::to_string(step));
}

Updated SimulatedLearner::answer_of(uint64_t step) const {
  return {.step = step, .metrics = {{"loss", static_cast<double>(weights_ % 1000)}}};
}

Updated SimulatedLearner::handle(const Update& m) {
  if (const Updated* answer = progress_.earlier_answer(m)) return *answer;
  process_.sleep(Millis(2 + world_.below(30)));
  const uint64_t batch = hash_of(m.batch);
  const auto [known, is_new] = observed_.batches.emplace(m.batch.step, batch);
  if (!is_new && known->second != batch)
    observed_.violations.push_back("step " + std::to_string(m.batch.step) + " was trained with two batches");
  weights_ = mix(weights_, batch);
  const uint64_t step = progress_.step() + 1;
  progress_.applied(answer_of(step));
  observed_.applied = std::max(observed_.applied, step);
  observed_.weights[step] = weights_;
  world_.tell(process_.connection() + " applied step " + std::to_string(step));
  return answer_of(step);
}

AnswerLogProbs SimulatedLearner::handle(const LogProbs&) {
  throw std::invalid_argument("not simulated");
}

LearnerState SimulatedLearner::handle(const AskState&) {
  return progress_.state();
}

PublishedWeights SimulatedLearner::handle(const PublishWeights& m) {
  for (const WeightManifest& dropped : progress_.drop_below(m.keep_from)) {
    const auto region = world_.regions.find(dropped.location);
    if (region != world_.regions.end() && region->second.owner == process_.connection()) world_.regions.erase(region);
  }
  if (const WeightManifest* kept = progress_.kept(m.version)) return {.manifest = *kept};
  progress_.need_step(m.version, "publish");
  process_.sleep(Millis(1 + world_.below(5)));
  const std::string name = "v" + std::to_string(m.version);
  world_.regions[name] = {process_.connection(), weights_};
  return {.manifest = progress_.keep(
              {.version = m.version, .dtype = m.dtype, .digest = std::to_string(weights_), .location = name})};
}

WeightChunk SimulatedLearner::handle(const FetchChunk&) {
  throw std::invalid_argument("not simulated");
}

Checkpointed SimulatedLearner::handle(const Checkpoint& m) {
  progress_.need_step(m.step, "checkpoint");
  const CheckpointMeta meta{.run = run_, .step = m.step, .journal_offset = m.journal_offset};
  const StateDict weights{{"weights", at::full({1}, static_cast<int64_t>(weights_), at::kLong)}};
  const auto folder = write_checkpoint(world_.disk, m.folder, meta, {{"learner", weights}}, 2);
  ++observed_.checkpoints;
  progress_.checkpointed(m.journal_offset);
  return {.folder = folder.string(), .step = m.step};
}

// ---- actor --------------------------------------------------------------------------------------------------------

void SimulatedActor::handle(const Generate& m, Responder<Generate> responder) {
  if (m.exact ? m.policy_version != version_ : m.policy_version > version_)
    return responder.fail(failure_code::kStaleWeights, "holds policy version " + std::to_string(version_) +
                                                           ", asked for " + std::to_string(m.policy_version));
  if (const auto old = answering_.find(m.draw); old != answering_.end()) {
    old->second.responder.fail(failure_code::kCancelled, "draw " + std::to_string(m.draw) + " was asked again");
    old->second.responder = std::move(responder);
    old->second.request.exact = m.exact;
    return;
  }
  answering_.emplace(m.draw, Answering{m, std::move(responder), {}, {}});
}

Ack SimulatedActor::handle(const CancelGenerate& m) {
  answering_.erase(m.draw);
  return {.version = version_};
}

WeightsTaken SimulatedActor::handle(const TakeWeights& m) {
  process_.sleep(Millis(1 + world_.below(3)));
  if (m.manifest.version == version_) return {.version = version_};
  for (auto it = answering_.begin(); it != answering_.end();) {
    const bool withdrawn = it->second.request.exact || m.manifest.version < version_;
    if (withdrawn) it->second.responder.fail(failure_code::kStaleWeights, "weights replaced");
    it = withdrawn ? answering_.erase(it) : std::next(it);
  }
  if (m.manifest.location == kBaseLocation) {
    version_ = 0;
    weights_ = 1;
    return {};
  }
  const auto region = world_.regions.find(m.manifest.location);
  if (region == world_.regions.end()) throw std::runtime_error("no region " + m.manifest.location);
  if (std::to_string(region->second.content) != m.manifest.digest)
    throw std::runtime_error("the region's digest is not the manifest's");
  version_ = m.manifest.version;
  weights_ = region->second.content;
  world_.tell(process_.connection() + " took version " + std::to_string(version_));
  return {.version = version_};
}

// One decode step of everything.
bool SimulatedActor::work() {
  if (answering_.empty()) return false;
  process_.sleep(Millis(1 + world_.below(4)));
  for (auto it = answering_.begin(); it != answering_.end();) {
    Answering& a = it->second;
    const Generate& m = a.request;
    const uint64_t position = a.tokens.size() / m.num_samples;
    for (uint64_t sample = 0; sample < m.num_samples; ++sample) {
      a.tokens.push_back(static_cast<int32_t>(mix(mix(m.seed, weights_), mix(m.draw, mix(sample, position))) % 1000));
      a.versions.push_back(static_cast<int32_t>(version_));
    }
    if (position + 1 < kTokens) {
      ++it;
      continue;
    }
    Rollouts out{.draw = m.draw};
    std::vector<int32_t> tokens, versions, lengths;
    std::vector<float> logprobs;
    for (uint64_t sample = 0; sample < m.num_samples; ++sample) {
      std::string text;
      for (uint64_t at = 0; at < kTokens; ++at) {
        tokens.push_back(a.tokens[at * m.num_samples + sample]);
        versions.push_back(a.versions[at * m.num_samples + sample]);
        logprobs.push_back(logprob(mix(static_cast<uint64_t>(tokens.back()), at)));
        text += std::to_string(tokens.back()) + " ";
      }
      lengths.push_back(kTokens);
      out.texts.push_back(text);
    }
    out.tokens = Attachment::of(std::move(tokens));
    out.versions = Attachment::of(std::move(versions));
    out.lengths = Attachment::of(std::move(lengths));
    out.logprobs = Attachment::of(std::move(logprobs));
    out.finish = Attachment::of(std::vector<uint8_t>(m.num_samples, 0));
    a.responder.reply(out);
    it = answering_.erase(it);
  }
  return !answering_.empty();
}

// ---- reference, reward ----------------------------------------------------------------------------------------------

AnswerLogProbs SimulatedReference::handle(const LogProbs& m) {
  process_.sleep(Millis(3));
  const auto tokens = m.tokens.as<int32_t>();
  const auto prompts = m.prompt_lengths.as<int32_t>(), responses = m.response_lengths.as<int32_t>();
  std::vector<float> out;
  std::size_t at = 0;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    at += static_cast<std::size_t>(prompts[i]);
    for (int32_t t = 0; t < responses[i]; ++t) out.push_back(logprob(mix(7, static_cast<uint64_t>(tokens[at++]))));
  }
  return {.logprobs = Attachment::of(std::move(out))};
}

Scores SimulatedReward::handle(const Score& m) {
  process_.sleep(Millis(1));
  Scores out;
  for (const std::string& text : m.responses)
    out.scores.push_back(static_cast<double>(mix_bytes(1, std::as_bytes(std::span(text.data(), text.size()))) % 10));
  return out;
}

}  // namespace troupe::simulation
