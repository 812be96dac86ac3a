// Where the members of a collective group find each other: a small key-value table, kept by the conductor or launcher
// and reached over the runtime's own authenticated messages. It replaces c10d's TCPStore, which has no authentication,
// whose clients never reconnect, and whose server thread asks DNS for every connection.
//
// Keys belong to a generation of the group. Generations are numbered by one place only, the owner of the table, with
// advance(); asks of an older generation fail with kFenced, so that a zombie can't disturb the group that replaced its
// own.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "actors/handle.hpp"

namespace troupe {

// What a member sees of the table, within one generation. Values are bytes. Any thread.
class Rendezvous {
 public:
  virtual ~Rendezvous() = default;
  virtual void set(const std::string& key, std::string value) = 0;
  // Waits for the key; throws std::runtime_error naming the key and the time waited.
  virtual std::string get(const std::string& key, Millis timeout) = 0;
  virtual int64_t add(const std::string& key, int64_t delta) = 0;  // the new value; an absent key counts from 0
  virtual bool check(const std::vector<std::string>& keys) = 0;    // all there?
  virtual void wait(const std::vector<std::string>& keys, Millis timeout) = 0;
  virtual bool remove(const std::string& key) = 0;
};

// One operation on the table and its outcome, as members of other processes send them.
struct RendezvousValue {
  static constexpr std::string_view kName = "rendezvous_value";
  bool found = false;
  std::string value;
  int64_t number = 0;
  static constexpr std::tuple kFields{Field{"found", &RendezvousValue::found}, Field{"value", &RendezvousValue::value},
                                      Field{"number", &RendezvousValue::number}};
};
TROUPE_FIELDS_COMPLETE(RendezvousValue);

struct AskRendezvous {
  static constexpr std::string_view kName = "ask_rendezvous";
  using Reply = RendezvousValue;
  std::string operation;  // "set", "get", "add", "check", "remove"
  uint64_t generation = 0;
  std::vector<std::string> keys;  // one, but for check
  std::string value;
  int64_t delta = 0;
  static constexpr std::tuple kFields{Field{"operation", &AskRendezvous::operation},
                                      Field{"generation", &AskRendezvous::generation},
                                      Field{"keys", &AskRendezvous::keys}, Field{"value", &AskRendezvous::value},
                                      Field{"delta", &AskRendezvous::delta}};
};
TROUPE_FIELDS_COMPLETE(AskRendezvous);

struct GenerationNumber {
  static constexpr std::string_view kName = "generation_number";
  uint64_t generation = 0;
  static constexpr std::tuple kFields{Field{"generation", &GenerationNumber::generation}};
};
TROUPE_FIELDS_COMPLETE(GenerationNumber);

// The owner of the table starts the next generation for a member that asks for it.
struct NextGeneration {
  static constexpr std::string_view kName = "next_generation";
  using Reply = GenerationNumber;
  static constexpr std::tuple<> kFields{};
};

struct RendezvousFace {
  using Accepts = Messages<AskRendezvous, NextGeneration>;
};

// The node that serves the table of a run.
inline constexpr std::string_view kRendezvousNode = "rendezvous/0";

// The table itself. Any thread.
class RendezvousTable {
 public:
  // Generations are larger than `before`.
  explicit RendezvousTable(uint64_t before = 0) : generation_(before) {}
  // Starts generation `generation`, larger than every earlier one: forgets the older keys and refuses the older
  // members. Throws std::invalid_argument when it is not larger.
  void advance(uint64_t generation);
  uint64_t next();  // likewise the generation after the current one, and gives its number
  uint64_t generation() const;
  // Throws RemoteFailure kFenced for another generation than the current one, std::invalid_argument for nonsense.
  RendezvousValue apply(const AskRendezvous& operation);

 private:
  mutable std::mutex mutex_;
  uint64_t generation_;
  std::map<std::string, std::string> values_;
};

// A member's view of a table in its own process.
std::shared_ptr<Rendezvous> local_rendezvous(std::shared_ptr<RendezvousTable> table, uint64_t generation);

// Serves a table at an endpoint, from a thread of its own, so that its owner may compute or wait meanwhile.
class RendezvousServer {
 public:
  RendezvousServer(NodeOptions options, std::shared_ptr<RendezvousTable> table);
  ~RendezvousServer();

 private:
  class Thread;
  std::unique_ptr<Thread> thread_;
};

// A member's view of the table that `peer` (a node of `mailbox`'s peers) serves. The mailbox must outlive it.
// Each operation is answered within `deadline` or throws RemoteFailure kDeadline.
std::shared_ptr<Rendezvous> remote_rendezvous(Mailbox& mailbox, std::string peer, uint64_t generation,
                                              Millis deadline = Millis(10'000));

}  // namespace troupe
