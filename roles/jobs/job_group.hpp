// The processes that train one job together, on one host or several. Errors are std::runtime_error naming rank and
// operation; every wait has a deadline.
//
// Ranks of one host meet over a socket file that their user alone can reach. With a secret they meet over tcp, where
// rank 0 listens at its address and port: CURVE keys of every rank follow from the secret, other keys get no word.
// Gloo's data sockets, bound to the address that reaches rank 0, are neither encrypted nor authenticated: a job over
// several hosts belongs into a network of its own.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "actors/clock.hpp"
#include "core/train/shard_group.hpp"
#include "roles/jobs/job_rank.hpp"

namespace troupe {

class JobGroup final : public ShardGroup {
 public:
  // Waits until all have come, for `patience` until rank 0 is there. Alone, it does nothing.
  explicit JobGroup(const JobRank& rank, Millis patience = Millis(120'000));
  ~JobGroup() override;

  int rank() const override { return rank_.rank; }
  int size() const override { return rank_.size; }

  // These throw LostRank.
  void sum(at::Tensor& tensor);  // in place, over all ranks; the same bits on every rank
  double sum(double value);
  void gather(at::Tensor& whole, std::span<const int64_t> bounds) override;
  std::vector<int64_t> gather(int64_t value);  // of every rank
  void barrier();

 private:
  struct Members;
  JobRank rank_;
  std::unique_ptr<Members> members_;  // null: alone
};

}  // namespace troupe
