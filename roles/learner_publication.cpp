// How a learner hands its weights out.
#include "actors/fault_hooks.hpp"
#include "core/io/weight_layout.hpp"
#include "roles/learner.hpp"

namespace troupe {

PublishedWeights Learner::handle(const PublishWeights& m) {
  need_group();
  const std::string what = "publish version " + std::to_string(m.version);
  withdraw_below(m.keep_from);
  if (const auto kept = published_.find(m.version); kept != published_.end()) return {kept->second.manifest};
  if (m.version != step_) fail_behind(what);  // not there yet, or a new process that does not keep it
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
  return {published_.emplace(m.version, std::move(made)).first->second.manifest};
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
      sign(*manifest, compute_region_->bytes());
      return {std::move(*manifest), compute_region_};
    }
  Published made{.manifest = layout_of(weights, dtype, version)};
  made.region = SharedRegion::create(made.manifest.total_bytes);
  pack(weights, made.manifest, made.region->writable());
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
  while (!published_.empty() && published_.begin()->first < version) {
    const std::string name = region_name(published_.begin()->first);
    regions_ ? regions_->withdraw(name) : InprocRegions::withdraw(name);
    published_.erase(published_.begin());
  }
}

WeightChunk Learner::handle(const FetchChunk& m) {
  const auto kept = published_.find(m.version);
  if (kept == published_.end())
    throw std::invalid_argument("fetch chunk: version " + std::to_string(m.version) + " is not published");
  const Published& p = kept->second;
  if (m.index >= p.manifest.chunk_crc32c.size())
    throw std::invalid_argument("fetch chunk " + std::to_string(m.index) + " of " +
                                std::to_string(p.manifest.chunk_crc32c.size()));
  const uint64_t begin = m.index * p.manifest.chunk_bytes;
  const uint64_t size = std::min<uint64_t>(p.manifest.chunk_bytes, p.manifest.total_bytes - begin);
  return {.bytes = {DType::kU8, {static_cast<int64_t>(size)}, p.region, p.region->bytes().subspan(begin, size)}};
}

}  // namespace troupe
