#include "roles/jobs/job_group.hpp"

#include <ATen/ops/full.h>
#include <unistd.h>

#include <string>

#include "actors/collectives.hpp"
#include "actors/rendezvous.hpp"
#include "actors/security.hpp"

namespace troupe {
namespace {

constexpr const char* kTable = "rendezvous/0";

// Where rank 0 listens: a socket file that only this user can reach, known by the port that the launcher chose.
std::string socket_file(const JobRank& rank) {
  const std::string folder = "/tmp/troupe-job-" + std::to_string(getuid());
  make_private_directory(folder);
  return folder + "/" + std::to_string(rank.port);
}

}  // namespace

struct JobGroup::Members {
  std::unique_ptr<RendezvousServer> server;  // rank 0's
  std::unique_ptr<Mailbox> mailbox;
  std::unique_ptr<Group> group;
};

JobGroup::JobGroup(const JobRank& rank) : rank_(rank) {
  if (rank.size == 1) return;
  members_ = std::make_unique<Members>();
  const std::string run = "job-" + std::to_string(rank.port), endpoint = "ipc://" + socket_file(rank);
  if (rank.rank == 0) {
    auto table = std::make_shared<RendezvousTable>();
    table->advance(1);
    NodeOptions options;
    options.node = kTable;
    options.run = run;
    options.endpoint = endpoint;
    members_->server = std::make_unique<RendezvousServer>(options, table);
  }
  NodeOptions options;
  options.node = "trainer/" + std::to_string(rank.rank);
  options.run = run;
  options.peers = {{kTable, {endpoint, ""}}};
  members_->mailbox = std::make_unique<SocketMailbox>(options);
  // A checkpoint or an evaluation of rank 0 keeps the others waiting, so the time is generous; a dead member is found
  // at once by its closed connection.
  members_->group = std::make_unique<Group>(
      GroupOptions{.generation = 1, .rank = rank.rank, .size = rank.size, .timeout = Millis(600'000)},
      remote_rendezvous(*members_->mailbox, kTable, 1, Millis(60'000)));
}

JobGroup::~JobGroup() = default;

void JobGroup::sum(at::Tensor& tensor) {
  if (members_) members_->group->all_reduce_sum(tensor);
}

double JobGroup::sum(double value) {
  if (!members_) return value;
  at::Tensor one = at::full({1}, value, at::kDouble);
  members_->group->all_reduce_sum(one);
  return one.item<double>();
}

void JobGroup::barrier() {
  if (members_) members_->group->barrier();
}

}  // namespace troupe
