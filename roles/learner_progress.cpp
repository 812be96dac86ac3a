#include "roles/learner_progress.hpp"

#include <algorithm>

#include "protocol/failure.hpp"

namespace troupe {

LearnerState LearnerProgress::state() const {
  return {.step = step_, .journal_offset = journal_offset_, .oldest = kept_.empty() ? step_ : kept_.begin()->first};
}

void LearnerProgress::begin_at(uint64_t step, uint64_t journal_offset, std::map<uint64_t, Updated> answers) {
  step_ = step;
  journal_offset_ = journal_offset;
  answers_ = std::move(answers);
}

const Updated* LearnerProgress::earlier_answer(const Update& m) const {
  const std::string what = "update step " + std::to_string(m.batch.step);
  if (const auto answer = answers_.find(m.batch.step); answer != answers_.end()) return &answer->second;
  if (m.batch.step != step_ + 1) fail_behind(what);
  for (uint64_t version = std::max<uint64_t>(m.keep_from, 1); version <= step_; ++version)
    if (!kept_.contains(version)) fail_behind(what + ", keeping version " + std::to_string(version));
  return nullptr;
}

void LearnerProgress::applied(const Updated& next) {
  step_ = next.step;
  answers_[step_] = next;
  answers_.erase(answers_.begin(), answers_.lower_bound(step_ - std::min(step_, kAnswersKept - 1)));
}

const WeightManifest* LearnerProgress::kept(uint64_t version) const {
  const auto found = kept_.find(version);
  return found == kept_.end() ? nullptr : &found->second;
}

std::vector<WeightManifest> LearnerProgress::drop_below(uint64_t version) {
  std::vector<WeightManifest> dropped;
  for (; !kept_.empty() && kept_.begin()->first < version; kept_.erase(kept_.begin()))
    dropped.push_back(std::move(kept_.begin()->second));
  return dropped;
}

void LearnerProgress::need_step(uint64_t step, const std::string& what) const {
  if (step != step_) fail_behind(what);
}

void LearnerProgress::fail_behind(const std::string& what) const {
  throw RemoteFailure(
      {std::string(failure_code::kBehind), node_, what, "has applied " + std::to_string(step_) + " steps"});
}

}  // namespace troupe
