// The processes that train one job together. Errors are std::runtime_error naming rank and operation; every wait has a
// deadline.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "roles/jobs/job_rank.hpp"

namespace troupe {

class JobGroup {
 public:
  // Waits until all have come. Alone, it does nothing.
  explicit JobGroup(const JobRank& rank);
  ~JobGroup();

  int rank() const { return rank_.rank; }
  int size() const { return rank_.size; }

  void sum(at::Tensor& tensor);  // in place, over all ranks; the same bits on every rank
  double sum(double value);
  void barrier();

 private:
  struct Members;
  JobRank rank_;
  std::unique_ptr<Members> members_;  // null: alone
};

}  // namespace troupe
