// A group of ranks that reduce, broadcast and meet: Gloo on the CPU, NCCL in builds with TROUPE_CUDA. Groups are never
// repaired: when a member dies every call of the others throws, they abort() and make a new Group with the next
// generation, numbered by one place only. Collectives are not atomic: after every regroup compare step numbers, the
// highest wins and is broadcast.
// A process with a Group ignores SIGPIPE from then on: Gloo writes to its sockets without MSG_NOSIGNAL, and a peer that
// died is to be an error here.
// Data sockets of Gloo and NCCL are not encrypted: `address` names the private interface they are bound to.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "actors/clock.hpp"

namespace at {
class Tensor;
}

namespace troupe {

class Rendezvous;

struct GroupOptions {
  uint64_t generation = 1;
  int rank = 0;
  int size = 1;
  Millis timeout{10'000};             // of every collective
  Millis forming{10'000};             // of forming the group
  std::string address = "127.0.0.1";  // local address that peers connect to
  std::string backend = "gloo";       // "gloo" or, with TROUPE_CUDA, "nccl"
  // Called now and then while a collective waits for the others, by the waiting thread: keeps its lease.
  std::function<void()> while_waiting = {};
};

// One member's end. One thread at a time makes collective calls; abort() may come from any thread.
class Group {
 public:
  // Returns when all members have come; throws std::runtime_error naming the missing rank otherwise.
  Group(GroupOptions options, std::shared_ptr<Rendezvous> rendezvous);
  ~Group();
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  const GroupOptions& options() const;

  // Dense, contiguous tensors of the same shape and dtype on every rank, changed in place. They return when the data is
  // there; throw std::runtime_error when a member died, the time is up or the group was aborted.
  void all_reduce_sum(at::Tensor& tensor);
  void broadcast(at::Tensor& tensor, int root);
  // Of one dimension: rank r brings elements [bounds[r], bounds[r + 1]) and receives the others'. No memory of its own.
  void all_gather(at::Tensor& tensor, std::span<const int64_t> bounds);
  void barrier();
  // Ends the group: running and later calls throw. Idempotent.
  void abort();

 private:
  struct Backend;
  std::unique_ptr<Backend> backend_;
};

}  // namespace troupe
