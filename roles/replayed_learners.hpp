// The learners of a run again, in this process and reachable by nobody else: for steps that are trained anew apart from
// the run. Several train as one, as they did there: each on a thread of its own with a share of every batch.
// The calling thread is the first learner's; one thread at a time.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "actors/rendezvous.hpp"
#include "roles/learner.hpp"

namespace troupe {

class ReplayedLearners {
 public:
  // They start from the newest checkpoint in folder/checkpoints, or from the base model. Throws as a learner does.
  ReplayedLearners(const Topology& topology, const std::filesystem::path& folder);
  ~ReplayedLearners();

  uint64_t step() { return first_->handle(AskState{}).step; }
  Updated update(const Experience& batch);
  double digest();  // of the weights as the run publishes them (digest_metric())
  std::filesystem::path checkpoint(const std::filesystem::path& folder, const std::string& export_to = "");

 private:
  class Follower;
  RoleSetting setting_of(const std::string& instance) const;
  NodeOptions options_of(const std::string& node) const;

  const Topology topology_;
  const std::filesystem::path folder_;
  const std::vector<std::string> instances_;
  const std::shared_ptr<Transport> transport_;
  std::unique_ptr<RendezvousServer> rendezvous_;
  std::vector<std::unique_ptr<Follower>> followers_;  // all but the first
  std::unique_ptr<SocketMailbox> mailbox_;
  std::unique_ptr<Context> context_;
  std::unique_ptr<Learner> first_;
};

}  // namespace troupe
