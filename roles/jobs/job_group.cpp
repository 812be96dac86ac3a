#include "roles/jobs/job_group.hpp"

#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <unistd.h>

#include <numeric>
#include <string>

#include "actors/collectives.hpp"
#include "actors/host_address.hpp"
#include "actors/rendezvous.hpp"
#include "actors/security.hpp"
#include "core/io/sha256.hpp"

namespace troupe {
namespace {

constexpr const char* kTable = "rendezvous/0";

std::string node_of(int rank) {
  return "trainer/" + std::to_string(rank);
}

// Where rank 0 listens: a socket file that only this user can reach, known by the port that the launcher chose.
std::string socket_file(const JobRank& rank) {
  const std::string folder = "/tmp/troupe-job-" + std::to_string(getuid());
  make_private_directory(folder);
  return folder + "/" + std::to_string(rank.port);
}

// A node's keys in this job, which every rank can work out: the secret half is SHA-256 of what stands here.
KeyPair keys_of_node(const JobRank& rank, const std::string& node) {
  Sha256 hash;
  hash.update("troupe job keys 1\n" + std::to_string(rank.port) + "\n" + std::to_string(rank.size) + "\n" + node +
              "\n" + rank.secret);
  return keys_of(hash.finish());
}

AllowList members_of(const JobRank& rank) {
  AllowList allowed;
  for (int r = 0; r < rank.size; ++r) allowed[keys_of_node(rank, node_of(r)).public_key] = node_of(r);
  return allowed;
}

}  // namespace

struct JobGroup::Members {
  std::unique_ptr<RendezvousServer> server;  // rank 0's
  std::unique_ptr<Mailbox> mailbox;
  std::unique_ptr<Group> group;

  template <class Call>
  void together(const Call& call) {
    try {
      call(*group);
    } catch (const std::runtime_error& error) {
      throw LostRank(error.what());
    }
  }
};

JobGroup::JobGroup(const JobRank& rank, Millis patience) : rank_(rank) {
  if (rank.size == 1) return;
  members_ = std::make_unique<Members>();
  const bool tcp = !rank.secret.empty();
  const std::string run = "job-" + std::to_string(rank.port);
  const std::string meeting = tcp ? address_of(rank.address) : "127.0.0.1";
  const std::string endpoint =
      tcp ? "tcp://" + meeting + ":" + std::to_string(rank.port) : "ipc://" + socket_file(rank);
  if (rank.rank == 0) {
    auto table = std::make_shared<RendezvousTable>();
    table->advance(1);
    NodeOptions options;
    options.node = kTable;
    options.run = run;
    options.endpoint = endpoint;
    if (tcp) {
      options.keys = keys_of_node(rank, kTable);
      options.transport = Transport::create(members_of(rank));
    }
    members_->server = std::make_unique<RendezvousServer>(options, table);
  }
  NodeOptions options;
  options.node = node_of(rank.rank);
  options.run = run;
  options.peers = {{kTable, {endpoint, ""}}};
  if (tcp) {
    options.keys = keys_of_node(rank, options.node);
    options.peers[kTable].public_key = keys_of_node(rank, kTable).public_key;
  }
  members_->mailbox = std::make_unique<SocketMailbox>(options);
  const auto rendezvous = remote_rendezvous(*members_->mailbox, kTable, 1, patience);
  try {
    rendezvous->check({"here"});  // does rank 0 answer?
  } catch (const RemoteFailure& failure) {
    if (!failure.is(failure_code::kDeadline)) throw;
    throw std::runtime_error("rank " + std::to_string(rank.rank) + ": no answer of rank 0 at " + endpoint + " within " +
                             std::to_string(patience.count() / 1000) + " s" +
                             (tcp ? "; is it started, with the same secret and WORLD_SIZE?" : "; is it started?"));
  }
  // A checkpoint of rank 0 keeps the others waiting, so the time is generous; a dead member is found at once by its
  // closed connection.
  members_->group = std::make_unique<Group>(GroupOptions{.generation = 1,
                                                         .rank = rank.rank,
                                                         .size = rank.size,
                                                         .timeout = Millis(600'000),
                                                         .forming = Millis(600'000),
                                                         .address = local_address_towards(meeting)},
                                            rendezvous);
}

JobGroup::~JobGroup() = default;

void JobGroup::sum(at::Tensor& tensor) {
  if (members_) members_->together([&](Group& group) { group.all_reduce_sum(tensor); });
}

double JobGroup::sum(double value) {
  if (!members_) return value;
  at::Tensor one = at::full({1}, value, at::kDouble);
  sum(one);
  return one.item<double>();
}

void JobGroup::gather(at::Tensor& whole, std::span<const int64_t> bounds) {
  if (members_) members_->together([&](Group& group) { group.all_gather(whole, bounds); });
}

std::vector<int64_t> JobGroup::gather(int64_t value) {
  at::Tensor all = at::zeros({size()}, at::kLong);
  all[rank()] = value;
  std::vector<int64_t> bounds(static_cast<std::size_t>(size()) + 1);
  std::iota(bounds.begin(), bounds.end(), 0);
  gather(all, bounds);
  const auto* values = all.const_data_ptr<int64_t>();
  return {values, values + size()};
}

void JobGroup::barrier() {
  if (members_) members_->together([](Group& group) { group.barrier(); });
}

}  // namespace troupe
