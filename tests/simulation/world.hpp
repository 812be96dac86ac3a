// One simulated host on virtual time: processes (fibers) with mailboxes, a network that delays, loses and cuts, a disk
// that forgets what was not synced. Everything random comes from one seed, so a seed is a course of events.
// Single-threaded; several worlds may live on several threads.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <set>
#include <string>
#include <vector>

#include "actors/exchange.hpp"
#include "disk.hpp"
#include "fiber.hpp"

namespace troupe::simulation {

class World;

// A simulated process: one node, one incarnation.
class Process final : public Mailbox {
 public:
  Process(World& world, NodeOptions options, std::function<void(Process&)> body);
  ~Process() override;

  // What the network and the world do to it.
  void request_arrived(const std::string& connection, std::vector<Frame> frames);
  void answer_arrived(const std::string& peer, std::vector<Frame> frames);
  void tick();
  void run();  // resumes the fiber where it waits, if it may run
  void kill();
  void stop();                   // SIGSTOP: neither thread runs
  void go_on();                  // SIGCONT
  void hang() { hung_ = true; }  // the working thread never returns, the mailbox's lives on
  bool ended() const { return fiber_.done(); }
  bool stopped() const { return stopped_; }
  const std::optional<std::string>& error() const { return error_; }  // what ended it; none after a clean end
  std::string connection() const { return options_.node + "#" + std::to_string(options_.incarnation); }

  // Of the running fiber: lets virtual time pass.
  void sleep(Instant::duration time) {
    wait_until(now() + time, [] { return false; });
  }
  void wait_until(Instant until, const std::function<bool()>& look);

  // ---- Mailbox
  const NodeOptions& options() const override { return options_; }
  Instant now() const override;
  void beat() override { pulse_.beat(); }
  void beat(std::string_view phase, std::string_view detail = {}) override { pulse_.beat(phase, detail); }
  RoleStatus status() const override { return exchange_.status(); }
  bool stopping() const override { return exchange_.stopping(); }
  std::string stop_reason() const override { return exchange_.stop_reason(); }
  void request_stop(std::string reason) override;
  void set_generation(uint64_t generation) override { exchange_.set_generation(generation); }
  std::shared_ptr<AnswerSlot> ask(const std::string& peer, std::string_view type, Encoded message,
                                  const AskOptions& options) override;
  bool done(const AnswerSlot& slot) const override { return slot.done; }
  std::optional<std::size_t> wait_any(std::span<const std::shared_ptr<AnswerSlot>> slots, Instant until) override;
  void forget(const std::shared_ptr<AnswerSlot>& slot) override;
  std::optional<Request> next(Instant until) override;
  void answer(const Request& request, std::string_view type, Encoded reply) override;
  void fail(const Request& request, std::string_view code, const std::string& message) override;

 private:
  void flush();
  void set_alarm();
  void wake_at(Instant when);

  World& world_;
  const NodeOptions options_;
  Pulse pulse_;
  Exchange exchange_;
  Fiber fiber_;
  std::optional<std::string> error_;
  bool stopped_ = false, hung_ = false, dying_ = false;
  Instant wake_ = Instant::max();   // when the fiber is resumed by itself
  Instant alarm_ = Instant::max();  // when the mailbox ticks
};

struct Conditions {
  double loss = 0;    // of each letter
  Millis slowest{1};  // of a letter's way
  bool syncs_work = true;
};

class World {
 public:
  World(uint64_t seed, Conditions conditions);
  ~World();

  Random random;
  Conditions conditions;
  SimulatedDisk disk;

  Instant now() const { return now_; }
  uint64_t below(uint64_t bound) { return random() % bound; }
  void at(Instant when, std::function<void()> what);
  void after(Millis time, std::function<void()> what) { at(now_ + time, std::move(what)); }
  // The next event; false when there is none or it lies behind `end`.
  bool advance(Instant end);

  // Starts a process; the one of that node before must have ended.
  void spawn(NodeOptions options, std::function<void(Process&)> body);
  Process* find(const std::string& node);  // null: not alive
  void on_exit(std::function<void(const std::string& node, const Process&)> what) { on_exit_ = std::move(what); }
  // Faults. From outside of all fibers (an event).
  void kill(const std::string& node);
  void kill_all();
  void stop(const std::string& node);
  void go_on(const std::string& node);
  // Nothing passes between the two until healed.
  void cut(const std::string& a, const std::string& b) { cuts_.insert({a, b}), cuts_.insert({b, a}); }
  void cut_one_way(const std::string& from, const std::string& to) { cuts_.insert({from, to}); }
  void heal() { cuts_.clear(); }
  void send(const Process& from, const Letter& letter);

  // For processes.
  void process_ended(const std::string& node);
  Process* running = nullptr;  // whose fiber runs now

  // Shared memory of the simulated host: gone with the process that made it.
  struct Region {
    std::string owner;  // its connection
    uint64_t content = 0;
  };
  std::map<std::string, Region> regions;

  uint64_t letters = 0, lost_letters = 0;
  bool trace = false;
  void tell(const std::string& line) const;

 private:
  struct Event {
    Instant when;
    uint64_t number;
    std::function<void()> what;
    bool operator<(const Event& o) const { return when != o.when ? when > o.when : number > o.number; }
  };
  struct Held {
    Letter letter;
    std::string sender, connection;
  };
  void deliver(const std::string& to, Held held);
  void deliver_held(const std::string& node);

  Instant now_{std::chrono::seconds(1000)};
  uint64_t events_ = 0;
  std::priority_queue<Event> queue_;
  std::map<std::string, std::unique_ptr<Process>> processes_;
  std::vector<std::unique_ptr<Process>> ended_;                          // freed when no fiber runs
  std::map<std::string, std::vector<Held>> held_;                        // for a dead or stopped node's return
  std::map<std::pair<std::string, std::string>, Instant> last_arrival_;  // a connection keeps its order
  std::set<std::pair<std::string, std::string>> cuts_;
  std::function<void(const std::string&, const Process&)> on_exit_;
};

}  // namespace troupe::simulation
