// How a learner hands its weights out.
#include "actors/fault_hooks.hpp"
#include "core/io/weight_layout.hpp"
#include "roles/learner.hpp"

namespace troupe {

PublishedWeights Learner::handle(const PublishWeights& m) {
  need_group();
  withdraw_below(m.keep_from);
  if (const WeightManifest* kept = progress_.kept(m.version)) return {.manifest = *kept};
  // Not there yet, or a new process that does not keep it.
  progress_.need_step(m.version, "publish version " + std::to_string(m.version));
  context_.beat("publish", "version " + std::to_string(m.version));
  fault_point("publish");
  Published made = published_version(m.version, m.dtype);
  const std::string name = region_name(m.version);
  made.manifest.location = !m.same_host ? "chunks:"
                           : regions_   ? "memfd:" + regions_->path() + "#" + name
                                        : "inproc:" + name;
  if (regions_) {
    regions_->publish(name, made.region);
  } else {
    InprocRegions::publish(name, made.region);
  }
  memory_[m.version] = made.region;
  return {.manifest = progress_.keep(made.manifest), .seconds_checksum = made.seconds_checksum};
}

// The engine's own memory where it holds what is asked for, else a copy.
Learner::Published Learner::published_version(uint64_t version, const std::string& dtype) {
  const StateDict weights = config_.lora.rank > 0 ? engine_->model().merged()
                            : dtype == "f32"      ? engine_->weights()
                                                  : engine_->compute_weights();
  if (compute_region_)
    if (auto manifest = layout_within(weights, dtype, version, compute_region_->bytes())) {
      engine_->freeze_compute_weights();
      compute_region_->seal();
      const Instant began = context_.now();
      sign(*manifest, compute_region_->bytes());
      return {std::move(*manifest), compute_region_, context_.seconds_since(began)};
    }
  Published made{.manifest = layout_of(weights, dtype, version)};
  made.region = SharedRegion::create(made.manifest.total_bytes);
  const Instant began = context_.now();
  pack(weights, made.manifest, made.region->writable());
  made.seconds_checksum = context_.seconds_since(began);
  made.region->seal();
  return made;
}

MemorySource Learner::compute_memory() {
  return [this](std::size_t bytes) {
    compute_region_ = SharedRegion::create(bytes);
    return at::DataPtr(
        compute_region_->writable().data(), new std::shared_ptr<SharedRegion>(compute_region_),
        [](void* held) { delete static_cast<std::shared_ptr<SharedRegion>*>(held); }, at::kCPU);
  };
}

std::string Learner::region_name(uint64_t version) const {
  return setting_.run_folder.filename().string() + "-v" + std::to_string(version);
}

// A reader that has opened an old version keeps its memory alive by itself.
void Learner::withdraw_below(uint64_t version) {
  for (const WeightManifest& dropped : progress_.drop_below(version)) {
    const std::string name = region_name(dropped.version);
    regions_ ? regions_->withdraw(name) : InprocRegions::withdraw(name);
    memory_.erase(dropped.version);
  }
}

WeightChunk Learner::handle(const FetchChunk& m) {
  const WeightManifest* const kept = progress_.kept(m.version);
  if (!kept) throw std::invalid_argument("fetch chunk: version " + std::to_string(m.version) + " is not published");
  if (m.index >= kept->chunk_crc32c.size())
    throw std::invalid_argument("fetch chunk " + std::to_string(m.index) + " of " +
                                std::to_string(kept->chunk_crc32c.size()));
  const uint64_t begin = m.index * kept->chunk_bytes;
  const uint64_t size = std::min<uint64_t>(kept->chunk_bytes, kept->total_bytes - begin);
  const std::shared_ptr<SharedRegion>& region = memory_.at(m.version);
  return {.bytes = {DType::kU8, {static_cast<int64_t>(size)}, region, region->bytes().subspan(begin, size)}};
}

}  // namespace troupe
