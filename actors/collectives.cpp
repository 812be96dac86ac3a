#include "actors/collectives.hpp"

#include <ATen/core/Tensor.h>

#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#ifdef TROUPE_CUDA
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

#include <atomic>
#include <condition_variable>
#include <csignal>
#include <mutex>
#include <stdexcept>

#include "actors/fault_hooks.hpp"
#include "actors/rendezvous.hpp"

namespace troupe {
namespace {

constexpr Millis kWaitingSlice{500};  // between two calls of while_waiting

// Held where a call of Gloo begins: it is noted in a table of the process (PyTorch's flight recorder) that is read and
// filled without a lock, and the learners of one process have a group each. (NCCL's may wait for the others here.)
std::mutex beginning;

// c10d's view of our rendezvous. Its generation fences the keys, so no prefix is needed.
class RendezvousStore final : public c10d::Store {
 public:
  RendezvousStore(std::shared_ptr<Rendezvous> rendezvous, Millis timeout)
      : c10d::Store(timeout), rendezvous_(std::move(rendezvous)) {}

  c10::intrusive_ptr<Store> clone() override { return c10::make_intrusive<RendezvousStore>(rendezvous_, timeout_); }
  void set(const std::string& key, const std::vector<uint8_t>& value) override {
    rendezvous_->set(key, std::string(value.begin(), value.end()));
  }
  std::vector<uint8_t> get(const std::string& key) override {
    const std::string value = rendezvous_->get(key, timeout_);
    return {value.begin(), value.end()};
  }
  int64_t add(const std::string& key, int64_t delta) override { return rendezvous_->add(key, delta); }
  bool deleteKey(const std::string& key) override { return rendezvous_->remove(key); }
  bool check(const std::vector<std::string>& keys) override { return rendezvous_->check(keys); }
  int64_t getNumKeys() override { throw std::runtime_error("the rendezvous does not count keys"); }
  void wait(const std::vector<std::string>& keys) override { rendezvous_->wait(keys, timeout_); }
  void wait(const std::vector<std::string>& keys, const std::chrono::milliseconds& timeout) override {
    rendezvous_->wait(keys, std::min(timeout, timeout_));
  }

 private:
  std::shared_ptr<Rendezvous> rendezvous_;
};

c10::intrusive_ptr<c10d::Backend> make_backend(const GroupOptions& options, std::shared_ptr<Rendezvous> rendezvous) {
  auto store = c10::make_intrusive<RendezvousStore>(std::move(rendezvous), options.forming);
  if (options.backend == "gloo") {
    // The timeout goes in through the options only: Gloo's own inline functions are of other headers than the library.
    auto gloo = c10d::ProcessGroupGloo::Options::create(options.forming);
    gloo->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(options.address));
    return c10::make_intrusive<c10d::ProcessGroupGloo>(store, options.rank, options.size, gloo);
  }
#ifdef TROUPE_CUDA
  if (options.backend == "nccl") {
    auto nccl = c10d::ProcessGroupNCCL::Options::create();
    nccl->timeout = options.timeout;
    return c10::make_intrusive<c10d::ProcessGroupNCCL>(store, options.rank, options.size, nccl);
  }
#endif
  throw std::invalid_argument("collective backend '" + options.backend + "': this build has gloo" +
#ifdef TROUPE_CUDA
                              " and nccl"
#else
                              " only"
#endif
  );
}

// c10d's messages begin with a source line of its own and may go on with a stack.
std::string first_line(const char* text) {
  const std::string_view all(text);
  return std::string(all.substr(0, all.find('\n')));
}

}  // namespace

struct Group::Backend {
  GroupOptions options;
  std::mutex mutex;  // guards `group` against abort()
  c10::intrusive_ptr<c10d::Backend> group;
  std::atomic<bool> aborted{false};

  // Shared with the completion callbacks, which may come after the waiter has left.
  struct Completion {
    std::mutex mutex;
    std::condition_variable changed;
    std::size_t open = 0;
    bool failed = false;
    std::string error;  // the first one's
  };
  std::mutex waiting_mutex;
  std::shared_ptr<Completion> waiting;

  std::string where() const {
    return "group generation " + std::to_string(options.generation) + ", rank " + std::to_string(options.rank) +
           " of " + std::to_string(options.size);
  }

  using Works = std::vector<c10::intrusive_ptr<c10d::Work>>;

  template <class Begin>
  void run(const char* what, const Begin& begin) {
    fault_point("collective");
    try {
      Works works;
      auto completion = std::make_shared<Completion>();
      {
        const std::lock_guard lock(mutex);
        if (aborted) throw std::runtime_error("aborted");
        {
          std::unique_lock beginning_lock(beginning, std::defer_lock);
          if (options.backend == "gloo") beginning_lock.lock();
          works = begin(*group);
        }
        completion->open = works.size();
        const std::lock_guard waiting_lock(waiting_mutex);
        waiting = completion;
      }
      wait(works, completion);
    } catch (const std::exception& error) {
      throw std::runtime_error(where() + ": " + what + ": " + first_line(error.what()));
    }
  }

  // Not work.wait(): that could not be interrupted before the group's timeout.
  void wait(const Works& works, const std::shared_ptr<Completion>& completion) {
    for (const auto& work : works)
      work->getFuture()->addCallback([completion](c10::ivalue::Future& future) {
        const std::lock_guard lock(completion->mutex);
        --completion->open;
        if (future.hasError() && !completion->failed) completion->error = future.tryRetrieveErrorMessage();
        completion->failed |= future.hasError();
        completion->changed.notify_all();
      });
    {
      std::unique_lock lock(completion->mutex);
      const auto over = [&] { return completion->open == 0 || completion->failed || aborted; };
      while (!completion->changed.wait_for(lock, kWaitingSlice, over))
        if (options.while_waiting) options.while_waiting();
      // From the future, for the work itself may not yet know of its end.
      if (completion->failed) throw std::runtime_error(completion->error);
      if (completion->open > 0) throw std::runtime_error("aborted");
    }
    for (const auto& work : works) work->wait();  // they are done; for NCCL, makes the current stream wait
  }

  void abort() {
    aborted = true;
    {
      const std::lock_guard lock(waiting_mutex);
      if (waiting) {
        const std::lock_guard completion_lock(waiting->mutex);
        waiting->changed.notify_all();
      }
    }
    const std::lock_guard lock(mutex);
#ifdef TROUPE_CUDA
    if (group && options.backend == "nccl") group->abort();
#endif
    group.reset();  // closes the connections, which makes the others' calls fail at once
  }
};

Group::Group(GroupOptions options, std::shared_ptr<Rendezvous> rendezvous) : backend_(std::make_unique<Backend>()) {
  if (options.size < 1 || options.rank < 0 || options.rank >= options.size)
    throw std::invalid_argument("group: rank " + std::to_string(options.rank) + " of " + std::to_string(options.size));
  backend_->options = options;
  std::signal(SIGPIPE, SIG_IGN);
  try {
    backend_->group = make_backend(options, std::move(rendezvous));
  } catch (const std::invalid_argument&) {
    throw;
  } catch (const std::exception& error) {
    throw std::runtime_error(backend_->where() + ": can't be formed: " + first_line(error.what()));
  }
}

Group::~Group() {
  abort();
}
const GroupOptions& Group::options() const {
  return backend_->options;
}
void Group::abort() {
  backend_->abort();
}

void Group::all_reduce_sum(at::Tensor& tensor) {
  std::vector<at::Tensor> tensors{tensor};
  c10d::AllreduceOptions options;
  options.timeout = backend_->options.timeout;
  backend_->run("all-reduce", [&](c10d::Backend& group) { return Backend::Works{group.allreduce(tensors, options)}; });
}

void Group::broadcast(at::Tensor& tensor, int root) {
  std::vector<at::Tensor> tensors{tensor};
  c10d::BroadcastOptions options;
  options.rootRank = root;
  options.timeout = backend_->options.timeout;
  backend_->run("broadcast", [&](c10d::Backend& group) { return Backend::Works{group.broadcast(tensors, options)}; });
}

// A broadcast of each rank's part, all under way together: c10d's all-gather wants parts of equal size and a copy of
// all.
void Group::all_gather(at::Tensor& tensor, std::span<const int64_t> bounds) {
  backend_->run("all-gather", [&](c10d::Backend& group) {
    Backend::Works works;
    for (int root = 0; root < backend_->options.size; ++root) {
      const int64_t begin = bounds[static_cast<std::size_t>(root)], end = bounds[static_cast<std::size_t>(root) + 1];
      if (begin == end) continue;
      std::vector<at::Tensor> part{tensor.narrow(0, begin, end - begin)};
      c10d::BroadcastOptions options;
      options.rootRank = root;
      options.timeout = backend_->options.timeout;
      works.push_back(group.broadcast(part, options));
    }
    return works;
  });
}

void Group::barrier() {
  c10d::BarrierOptions options;
  options.timeout = backend_->options.timeout;
  backend_->run("barrier", [&](c10d::Backend& group) { return Backend::Works{group.barrier(options)}; });
}

}  // namespace troupe
