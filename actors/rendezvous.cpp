#include "actors/rendezvous.hpp"

#include <algorithm>
#include <charconv>
#include <thread>

#include "actors/runner.hpp"

namespace troupe {
namespace {

constexpr std::size_t kMaxKeys = 100'000;

// Everything a member does is one round trip; waiting is asking again, so no thread of the owner is ever held up.
class Member : public Rendezvous {
 public:
  explicit Member(uint64_t generation) : generation_(generation) {}
  void set(const std::string& key, std::string value) override {
    run({"set", generation_, {key}, std::move(value), 0});
  }
  int64_t add(const std::string& key, int64_t delta) override {
    return run({"add", generation_, {key}, "", delta}).number;
  }
  bool check(const std::vector<std::string>& keys) override { return run({"check", generation_, keys, "", 0}).found; }
  bool remove(const std::string& key) override { return run({"remove", generation_, {key}, "", 0}).found; }
  std::string get(const std::string& key, Millis timeout) override {
    wait({key}, timeout);
    return run({"get", generation_, {key}, "", 0}).value;
  }
  void wait(const std::vector<std::string>& keys, Millis timeout) override {
    const Instant until = std::chrono::steady_clock::now() + timeout;
    for (Millis pause(1); !check(keys); pause = std::min(pause * 2, Millis(20))) {
      if (std::chrono::steady_clock::now() + pause > until) refuse(keys, timeout);
      std::this_thread::sleep_for(pause);
    }
  }

 protected:
  virtual RendezvousValue run(const AskRendezvous& operation) = 0;

 private:
  [[noreturn]] void refuse(const std::vector<std::string>& keys, Millis timeout) {
    std::string missing;
    for (const std::string& key : keys)
      if (!check({key})) missing += " " + key;
    throw std::runtime_error("rendezvous of generation " + std::to_string(generation_) + ": missing after " +
                             std::to_string(timeout.count()) + " ms:" + missing);
  }
  const uint64_t generation_;
};

class LocalMember final : public Member {
 public:
  LocalMember(std::shared_ptr<RendezvousTable> table, uint64_t generation)
      : Member(generation), table_(std::move(table)) {}

 private:
  RendezvousValue run(const AskRendezvous& operation) override { return table_->apply(operation); }
  std::shared_ptr<RendezvousTable> table_;
};

class RemoteMember final : public Member {
 public:
  RemoteMember(Mailbox& mailbox, std::string peer, uint64_t generation, Millis deadline)
      : Member(generation), handle_(mailbox, std::move(peer)), deadline_(deadline) {}

 private:
  RendezvousValue run(const AskRendezvous& operation) override {
    return handle_.ask(operation, {.deadline = deadline_, .what = "rendezvous " + operation.operation}).get();
  }
  Handle<RendezvousFace> handle_;
  Millis deadline_;
};

struct TableRole {
  using Face = RendezvousFace;
  RendezvousValue handle(const AskRendezvous& m) { return table->apply(m); }
  GenerationNumber handle(const NextGeneration&) { return {table->next()}; }
  std::shared_ptr<RendezvousTable> table;
};

int64_t number_in(const std::string& text) {
  int64_t number = 0;
  const auto end = text.data() + text.size();
  if (std::from_chars(text.data(), end, number).ptr != end || text.empty())
    throw std::invalid_argument("rendezvous add: the key holds no number");
  return number;
}

}  // namespace

// ---- the table ----------------------------------------------------------------------------------------------------

void RendezvousTable::advance(uint64_t generation) {
  const std::lock_guard lock(mutex_);
  if (generation <= generation_)
    throw std::invalid_argument("generation " + std::to_string(generation) + " does not follow " +
                                std::to_string(generation_));
  generation_ = generation;
  values_.clear();
}

uint64_t RendezvousTable::next() {
  const std::lock_guard lock(mutex_);
  values_.clear();
  return ++generation_;
}

uint64_t RendezvousTable::generation() const {
  const std::lock_guard lock(mutex_);
  return generation_;
}

RendezvousValue RendezvousTable::apply(const AskRendezvous& m) {
  const std::lock_guard lock(mutex_);
  if (m.generation != generation_)
    throw RemoteFailure(
        {std::string(failure_code::kFenced), "rendezvous", m.operation,
         "generation " + std::to_string(m.generation) + " is not the current one, " + std::to_string(generation_)});
  if (m.operation == "check")
    return {std::all_of(m.keys.begin(), m.keys.end(), [&](const auto& key) { return values_.contains(key); }), "", 0};
  if (m.keys.size() != 1) throw std::invalid_argument("rendezvous " + m.operation + ": expected one key");
  const std::string& key = m.keys[0];
  const auto found = values_.find(key);
  if (m.operation == "get") return found == values_.end() ? RendezvousValue{} : RendezvousValue{true, found->second, 0};
  if (m.operation == "remove") return {values_.erase(key) > 0, "", 0};
  if (values_.size() >= kMaxKeys) throw std::invalid_argument("rendezvous: too many keys");
  if (m.operation == "set") {
    values_[key] = m.value;
    return {true, "", 0};
  }
  if (m.operation != "add") throw std::invalid_argument("rendezvous: unknown operation '" + m.operation + "'");
  const int64_t sum = (found == values_.end() ? 0 : number_in(found->second)) + m.delta;
  values_[key] = std::to_string(sum);
  return {true, "", sum};
}

std::shared_ptr<Rendezvous> local_rendezvous(std::shared_ptr<RendezvousTable> table, uint64_t generation) {
  return std::make_shared<LocalMember>(std::move(table), generation);
}

std::shared_ptr<Rendezvous> remote_rendezvous(Mailbox& mailbox, std::string peer, uint64_t generation,
                                              Millis deadline) {
  return std::make_shared<RemoteMember>(mailbox, std::move(peer), generation, deadline);
}

// ---- its server ---------------------------------------------------------------------------------------------------

class RendezvousServer::Thread {
 public:
  Thread(NodeOptions options, std::shared_ptr<RendezvousTable> table)
      : mailbox_(std::move(options)), role_{std::move(table)}, thread_([this] {
          Context context(mailbox_);
          serve(role_, context);
        }) {}
  ~Thread() {
    mailbox_.request_stop("the rendezvous has closed");
    thread_.join();
  }

 private:
  SocketMailbox mailbox_;
  TableRole role_;
  std::thread thread_;
};

RendezvousServer::RendezvousServer(NodeOptions options, std::shared_ptr<RendezvousTable> table)
    : thread_(std::make_unique<Thread>(std::move(options), std::move(table))) {}
RendezvousServer::~RendezvousServer() = default;

}  // namespace troupe
