#include "roles/actor.hpp"

#include "actors/fault_hooks.hpp"
#include "core/io/weight_layout.hpp"
#include "roles/compute.hpp"
#include "roles/model_source.hpp"

namespace troupe {
namespace {

constexpr Millis kRegionDeadline{10'000};
constexpr std::size_t kChunksInFlight = 4;

}  // namespace

Actor::Actor(const RoleSetting& setting, Context& context)
    : config_(from_json<Config>(setting.config(), setting.where())), setting_(setting), context_(context) {
  const std::string& path = setting.model_or(config_.model);
  context_.beat("load", path);
  const at::ScalarType dtype = scalar_type(config_.dtype);
  const at::Device device = device_of(setting.node());
  std::optional<LoadedModel> model = load_model(path, dtype);
  tokenizer_ = load_tokenizer(path);
  const auto decode_text = [this](std::span<const int32_t> ids) { return tokenizer_->decode(ids, true); };
  engine_.emplace(model->config, model->weights, decode_text,
                  EngineOptions{.dtype = dtype,
                                .threads = setting.threads,
                                .max_batch = config_.max_batch,
                                .max_tokens = config_.max_kv_tokens,
                                .plain_kernels = config_.plain_kernels || !device.is_cpu(),
                                .kernels = config_.kernels,
                                .device = device});
  model.reset();
  release_load_memory();
}

void Actor::handle(const Generate& m, Responder<Generate> responder) {
  if (!proven_)
    return responder.fail(failure_code::kStaleWeights, "the weights in use are not proven to be a published version");
  if (m.exact ? m.policy_version != version_ : m.policy_version > version_)
    return responder.fail(failure_code::kStaleWeights, "holds policy version " + std::to_string(version_) +
                                                           ", asked for " + std::to_string(m.policy_version));
  // The same draw asked again under a new id (its asker was replaced): what is generated goes to the newer asker.
  if (const auto old = waiting_.find(m.draw); old != waiting_.end()) {
    old->second.responder.fail(failure_code::kCancelled, "draw " + std::to_string(m.draw) + " was asked again");
    old->second = {std::move(responder), m.exact};
    return;
  }
  const auto prompt = m.prompt.as<int32_t>();
  engine_->submit({.id = m.draw,
                   .seed = m.seed,
                   .draw = m.draw,
                   .num_samples = static_cast<int64_t>(m.num_samples),
                   .prompt = {prompt.begin(), prompt.end()},
                   .sampling = m.sampling});
  waiting_.emplace(m.draw, Waiting{std::move(responder), m.exact});
}

Ack Actor::handle(const CancelGenerate& m) {
  engine_->cancel(m.draw);
  if (const auto it = waiting_.find(m.draw); it != waiting_.end()) {
    it->second.responder.fail(failure_code::kCancelled, "draw " + std::to_string(m.draw) + " was withdrawn");
    waiting_.erase(it);
  }
  return {.version = version_};
}

// Between hosts: chunk by chunk from the learner, into memory of our own.
std::shared_ptr<SharedRegion> Actor::fetch_chunks(const WeightManifest& manifest) {
  const auto learner = context_.handle<LearnerFace>(instances_of_role(setting_.topology, "learner").at(0));
  auto region = SharedRegion::create(manifest.total_bytes);
  std::vector<Pending<WeightChunk>> open;
  const std::size_t count = manifest.chunk_crc32c.size();
  for (std::size_t next = 0, at = 0; at < count; ++at) {
    for (; next < count && next < at + kChunksInFlight; ++next)
      open.push_back(learner.ask(FetchChunk{.version = manifest.version, .index = next},
                                 {.deadline = kRegionDeadline, .what = "fetch chunk " + std::to_string(next)}));
    const WeightChunk chunk = open[at].get();
    if (!verify_chunk(manifest, at, chunk.bytes.bytes))
      throw std::runtime_error("chunk " + std::to_string(at) + " of version " + std::to_string(manifest.version) +
                               " arrived damaged");
    std::ranges::copy(chunk.bytes.bytes, region->writable().begin() + at * manifest.chunk_bytes);
    context_.beat();
  }
  region->seal();
  return region;
}

WeightsTaken Actor::handle(const TakeWeights& m) {
  const WeightManifest& manifest = m.manifest;
  if (proven_ && manifest.version == version_ && manifest.digest == digest_) return {.version = version_};
  context_.beat("take_weights", "version " + std::to_string(manifest.version));
  fault_point("weights");
  withdraw(manifest.version < version_);  // back: what goes on would have tokens that are too old for its step
  if (manifest.location == kBaseLocation) {
    {
      const LoadedModel base = load_model(setting_.model_or(config_.model), scalar_type(config_.dtype));
      proven_ = false;
      engine_->swap_weights(base.weights, 0);
    }
    release_load_memory();
    proven_ = true;
    version_ = 0;
    digest_.clear();
    return {.version = version_};
  }
  check_manifest(manifest);
  const auto region = manifest.location == "chunks:"
                          ? fetch_chunks(manifest)
                          : open_region(manifest.location, kRegionDeadline, [this] { context_.beat(); });
  const Instant began = context_.now();
  verify(manifest, region->bytes());
  const double seconds_verify = context_.seconds_since(began);
  const StateDict weights = unpack(manifest, region->bytes(), region);
  proven_ = false;
  engine_->swap_weights(weights, manifest.version);
  context_.beat();
  const Instant swapped = context_.now();
  if (!engine_->holds(weights))
    throw std::runtime_error("the weights in use are not those of version " + std::to_string(manifest.version) +
                             ", digest " + manifest.digest);
  const double seconds_prove = context_.seconds_since(swapped);
  proven_ = true;
  version_ = manifest.version;
  digest_ = manifest.digest;
  fault_point("weights.taken");
  return {.version = version_, .seconds_verify = seconds_verify, .seconds_prove = seconds_prove};
}

// Answers that may not mix versions do not outlive theirs.
void Actor::withdraw(bool all) {
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    if (!all && !it->second.exact) {
      ++it;
      continue;
    }
    engine_->cancel(it->first);
    it->second.responder.fail(failure_code::kStaleWeights, "policy version " + std::to_string(version_) +
                                                               " was replaced while draw " + std::to_string(it->first) +
                                                               " was generated");
    it = waiting_.erase(it);
  }
}

bool Actor::work() {
  fault_point("generate");
  if (!proven_ || !engine_->step()) return false;
  while (const auto finished = engine_->take_finished()) reply(*finished);
  const EngineStats stats = engine_->stats();
  context_.beat("generate", std::to_string(stats.running_sequences) + " answers running, " +
                                std::to_string(waiting_.size()) + " prompts open");
  const bool more = stats.running_sequences > 0 || stats.waiting_requests > 0;
  if (!more) engine_->discard_cache();  // other roles of the host take their turn
  return more;
}

void Actor::reply(const Finished& finished) {
  const auto it = waiting_.find(finished.id);
  if (it == waiting_.end()) return;  // withdrawn
  std::vector<int32_t> tokens, lengths, versions;
  std::vector<float> logprobs;
  std::vector<uint8_t> finish;
  Rollouts out{.draw = finished.id};
  for (const Completion& answer : finished.completions) {
    tokens.insert(tokens.end(), answer.tokens.begin(), answer.tokens.end());
    logprobs.insert(logprobs.end(), answer.logprobs.begin(), answer.logprobs.end());
    versions.insert(versions.end(), answer.versions.begin(), answer.versions.end());
    lengths.push_back(static_cast<int32_t>(answer.tokens.size()));
    finish.push_back(static_cast<uint8_t>(answer.finish));
    out.texts.push_back(answer.text);
  }
  out.tokens = Attachment::of(std::move(tokens));
  out.lengths = Attachment::of(std::move(lengths));
  out.logprobs = Attachment::of(std::move(logprobs));
  out.versions = Attachment::of(std::move(versions));
  out.finish = Attachment::of(std::move(finish));
  it->second.responder.reply(out);
  waiting_.erase(it);
}

}  // namespace troupe
