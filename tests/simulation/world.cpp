#include "world.hpp"

#include <cstdio>
#include <exception>

namespace troupe::simulation {
namespace {

constexpr Millis kWaitSlice{500};  // a waiting thread beats at least this often

}  // namespace

// ---- a process ----------------------------------------------------------------------------------------------------

Process::Process(World& world, NodeOptions options, std::function<void(Process&)> body)
    : world_(world),
      options_(std::move(options)),
      pulse_(options_.phase),
      exchange_(options_, pulse_),
      fiber_([this, body = std::move(body)] {
        try {
          body(*this);
        } catch (const std::exception& error) {
          error_ = error.what();
        }
        if (dying_) throw Killed{};
        exchange_.close();
        flush();
      }) {
  wake_at(now());
  set_alarm();
}

Process::~Process() = default;

Instant Process::now() const {
  return world_.now();
}

void Process::run() {
  if (fiber_.done() || stopped_ || hung_) return;
  world_.running = this;
  fiber_.resume();
  world_.running = nullptr;
  if (fiber_.done()) world_.process_ended(options_.node);
}

// Resumes the fiber then, unless an earlier time is set already.
void Process::wake_at(Instant when) {
  if (when >= wake_) return;
  wake_ = when;
  world_.at(when, [&world = world_, node = options_.node, connection = connection(), when] {
    Process* self = world.find(node);
    if (!self || self->connection() != connection || self->wake_ != when) return;
    self->wake_ = Instant::max();
    self->run();
  });
}

void Process::kill() {
  dying_ = true;
  error_ = "killed by signal 9";
  world_.running = this;
  fiber_.kill();
  world_.running = nullptr;
}

void Process::stop() {
  stopped_ = true;
}

void Process::go_on() {
  stopped_ = false;
  tick();
  wake_at(now());
}

// The mailbox's thread.
void Process::tick() {
  if (stopped_ || fiber_.done()) return;
  exchange_.tick(now());
  flush();
}

void Process::flush() {
  if (dying_) return;
  for (const Letter& letter : exchange_.take_letters()) world_.send(*this, letter);
  set_alarm();
}

void Process::set_alarm() {
  const Instant due = exchange_.next_event();
  if (stopped_ || due >= alarm_ || due == Instant::max()) return;
  alarm_ = std::max(due, now());
  world_.at(alarm_, [&world = world_, node = options_.node, connection = connection(), when = alarm_] {
    Process* self = world.find(node);
    if (!self || self->connection() != connection || self->alarm_ != when) return;
    self->alarm_ = Instant::max();
    self->tick();
    self->set_alarm();
  });
}

void Process::request_arrived(const std::string& connection, std::vector<Frame> frames) {
  exchange_.request_arrived(connection, "", std::move(frames), now());
  flush();
  wake_at(now());
}

void Process::answer_arrived(const std::string& peer, std::vector<Frame> frames) {
  exchange_.answer_arrived(peer, std::move(frames), now());
  flush();
  wake_at(now());
}

// Looks whenever something arrived and when the time has come.
void Process::wait_until(Instant until, const std::function<bool()>& look) {
  if (dying_) {
    if (std::uncaught_exceptions() > 0) return;  // a destructor: the process is dead already
    throw Killed{};
  }
  while (!look() && now() < until) {
    wake_at(std::min(until, now() + kWaitSlice));
    Fiber::suspend();
    pulse_.beat();
  }
}

void Process::request_stop(std::string reason) {
  exchange_.stop(reason);
  flush();
}

std::shared_ptr<AnswerSlot> Process::ask(const std::string& peer, std::string_view type, Encoded message,
                                         const AskOptions& options) {
  auto slot = std::make_shared<AnswerSlot>();
  slot->peer = peer;
  slot->what = options.what.empty() ? std::string(type) : options.what;
  OpenRequest request{peer, options.id, options.trace, std::string(type), std::move(message), slot};
  request.deadline = now() + options.deadline;
  exchange_.ask(std::move(request), now());
  flush();
  return slot;
}

std::optional<std::size_t> Process::wait_any(std::span<const std::shared_ptr<AnswerSlot>> slots, Instant until) {
  std::optional<std::size_t> found;
  wait_until(until, [&] {
    for (std::size_t i = 0; i < slots.size() && !found; ++i)
      if (slots[i]->done) found = i;
    return found.has_value();
  });
  return found;
}

void Process::forget(const std::shared_ptr<AnswerSlot>& slot) {
  if (!slot->done) exchange_.withdraw(slot.get());
}

std::optional<Request> Process::next(Instant until) {
  std::optional<Request> request;
  wait_until(until, [&] {
    auto& queue = exchange_.queue();
    if (!queue.empty()) {
      request = std::move(queue.front());
      queue.pop_front();
    }
    return request || exchange_.stopping();
  });
  return request;
}

void Process::answer(const Request& request, std::string_view type, Encoded reply) {
  exchange_.answer(request.src, request.id, {std::string(letter_kind::kReply), std::string(type), std::move(reply)});
  flush();
}

void Process::fail(const Request& request, std::string_view code, const std::string& message) {
  exchange_.answer(
      request.src, request.id,
      {std::string(letter_kind::kFailure), "failure", encode(exchange_.failure(code, request.type, message))});
  flush();
}

// ---- the world ----------------------------------------------------------------------------------------------------

World::World(uint64_t seed, Conditions conditions_of_it)
    : random(seed), conditions(conditions_of_it), disk(random, [this](bool sync) {
        if (running) running->sleep(std::chrono::microseconds(sync ? 200 + below(5000) : below(500)));
      }) {
  if (!conditions.syncs_work) disk.forget_syncs();
}

World::~World() {
  trace = false;
  on_exit_ = nullptr;
  kill_all();
}

void World::tell(const std::string& line) const {
  if (!trace) return;
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(now_.time_since_epoch()).count();
  std::printf("%10.3f %s\n", static_cast<double>(micros - 1'000'000'000) / 1e6, line.c_str());
}

void World::at(Instant when, std::function<void()> what) {
  queue_.push({std::max(when, now_), ++events_, std::move(what)});
}

bool World::advance(Instant end) {
  if (queue_.empty() || queue_.top().when > end) return false;
  const Event event = queue_.top();
  queue_.pop();
  now_ = event.when;
  event.what();
  ended_.clear();
  return true;
}

void World::spawn(NodeOptions options, std::function<void(Process&)> body) {
  const std::string node = options.node;
  if (find(node)) throw std::logic_error(node + " is alive");
  processes_.erase(node);
  tell("start " + node + "#" + std::to_string(options.incarnation));
  processes_.emplace(node, std::make_unique<Process>(*this, std::move(options), std::move(body)));
  deliver_held(node);
}

Process* World::find(const std::string& node) {
  const auto found = processes_.find(node);
  return found == processes_.end() ? nullptr : found->second.get();
}

void World::process_ended(const std::string& node) {
  const auto found = processes_.find(node);
  tell("end of " + found->second->connection() + (found->second->error() ? ": " + *found->second->error() : ""));
  std::erase_if(regions, [&](const auto& region) { return region.second.owner == found->second->connection(); });
  ended_.push_back(std::move(found->second));
  processes_.erase(found);
  if (on_exit_) on_exit_(node, *ended_.back());
}

void World::kill(const std::string& node) {
  Process* const process = find(node);
  if (!process) return;
  tell("kill " + process->connection());
  process->kill();
  process_ended(node);
}

void World::kill_all() {
  while (!processes_.empty()) kill(processes_.begin()->first);
  held_.clear();
}

void World::stop(const std::string& node) {
  if (Process* const process = find(node)) tell("stop " + process->connection()), process->stop();
}

void World::go_on(const std::string& node) {
  Process* const process = find(node);
  if (!process || !process->stopped()) return;
  tell("go on " + process->connection());
  process->go_on();
  deliver_held(node);
}

// A letter to a node that is not there waits in its sender's queue or dies with the old connection.
void World::send(const Process& from, const Letter& letter) {
  ++letters;
  const std::string to = letter.to_peer ? letter.address : letter.address.substr(0, letter.address.find('#'));
  const std::string& sender = from.options().node;
  if (cuts_.contains({sender, to}) ||
      (conditions.loss > 0 && static_cast<double>(random() >> 11) * 0x1p-53 < conditions.loss)) {
    ++lost_letters;
    return;
  }
  const auto way = std::chrono::microseconds(20 + below(1000 * static_cast<uint64_t>(conditions.slowest.count())));
  Instant& last = last_arrival_[{from.connection(), to}];
  last = std::max(now_ + way, last);
  at(last, [this, to, held = Held{letter, sender, from.connection()}]() mutable { deliver(to, std::move(held)); });
}

void World::deliver(const std::string& to, Held held) {
  Process* const process = find(to);
  if (!process || process->stopped()) {
    if (held.letter.to_peer && (process || below(2) == 0)) held_[to].push_back(std::move(held));
    return;
  }
  if (held.letter.to_peer) {
    process->request_arrived(held.connection, std::move(held.letter.frames));
  } else if (held.letter.address == process->connection()) {
    process->answer_arrived(held.sender, std::move(held.letter.frames));
  }
}

void World::deliver_held(const std::string& node) {
  auto letters_for_it = std::move(held_[node]);
  held_.erase(node);
  for (Held& held : letters_for_it)
    at(now_ + std::chrono::milliseconds(1),
       [this, node, held = std::move(held)]() mutable { deliver(node, std::move(held)); });
}

}  // namespace troupe::simulation
