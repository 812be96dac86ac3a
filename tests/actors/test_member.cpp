// One rank of a group in a process of its own: test_member FOLDER RANK SIZE DIE_AT
// Reduces until it has made 30 steps; at step DIE_AT (0: never) it kills itself in the middle of the others'
// collective. After an error it aborts and joins again with the generation that stands in FOLDER/generation; the
// highest step wins and is broadcast. Writes its final sum to FOLDER/result-RANK.
#include <ATen/ATen.h>

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "actors/collectives.hpp"
#include "actors/rendezvous.hpp"

namespace {

using namespace troupe;
using namespace std::chrono_literals;

uint64_t generation_in(const std::string& folder) {
  uint64_t generation = 0;
  std::ifstream(folder + "/generation") >> generation;
  return generation;
}

std::unique_ptr<Group> join(const std::string& folder, Mailbox& mailbox, int rank, int size, uint64_t after) {
  for (;;) {
    const uint64_t generation = generation_in(folder);
    if (generation > after) {
      try {
        return std::make_unique<Group>(
            GroupOptions{.generation = generation, .rank = rank, .size = size, .forming = Millis(60'000)},
            remote_rendezvous(mailbox, "rendezvous/0", generation));
      } catch (const std::runtime_error&) {  // numbered on meanwhile
        after = generation;
      }
    }
    std::this_thread::sleep_for(5ms);
  }
}

// The highest step and its state win.
void agree(Group& group, int rank, int size, at::Tensor& state, at::Tensor& step) {
  at::Tensor steps = at::zeros({size}, at::kLong);
  steps.narrow(0, rank, 1).copy_(step);
  group.all_reduce_sum(steps);
  const auto best = static_cast<int>(steps.argmax().item<int64_t>());
  group.broadcast(state, best);
  group.broadcast(step, best);
}

}  // namespace

int main(int, char** argv) {
  const std::string folder = argv[1];
  const int rank = std::atoi(argv[2]), size = std::atoi(argv[3]), die_at = std::atoi(argv[4]);
  NodeOptions options;
  options.node = "member/" + std::to_string(rank);
  options.run = "test";
  options.incarnation = static_cast<uint64_t>(std::atoi(argv[5]));
  options.peers = {{"rendezvous/0", {"ipc://" + folder + "/rendezvous", ""}}};
  SocketMailbox mailbox(options);
  at::Tensor state = at::zeros({100'000}), step = at::zeros({1}, at::kLong);
  uint64_t generation = 0;
  while (step.item<int64_t>() < 30) {
    auto group = join(folder, mailbox, rank, size, generation);
    generation = group->options().generation;
    try {
      agree(*group, rank, size, state, step);
      while (step.item<int64_t>() < 30) {
        if (step.item<int64_t>() + 1 == die_at) raise(SIGKILL);
        at::Tensor gradient = at::full({100'000}, static_cast<double>(rank + 1)) * (step + 1).to(at::kFloat);
        group->all_reduce_sum(gradient);
        state += gradient;
        step += 1;
        std::this_thread::sleep_for(2ms);
      }
      group->barrier();
    } catch (const std::runtime_error& error) {
      std::ofstream(folder + "/errors-" + std::to_string(rank), std::ios::app) << error.what() << "\n";
      group->abort();
    }
  }
  std::ofstream(folder + "/result-" + std::to_string(rank)) << state.sum().item<double>() << " " << getpid() << "\n";
  _exit(0);  // Gloo's threads are not waited for
}
