// The protocol of two nodes on virtual time, over a channel that loses what it is told to lose.
#include "actors/exchange.hpp"

#include <gtest/gtest.h>

#include <random>

#include "tests/actors/echo.hpp"
#include "tests/support/fuzz.hpp"

namespace troupe {
namespace {

struct Node {
  NodeOptions options;
  Pulse pulse{"load"};
  std::unique_ptr<Exchange> exchange;
  std::vector<std::string> logged;
  Node(std::string name, uint64_t incarnation = 1, uint64_t epoch = 1, bool drives = false) {
    options.node = std::move(name);
    options.incarnation = incarnation;
    options.run = "r";
    options.epoch = epoch;
    options.drives = drives;
    options.log = [this](const std::string& line) { logged.push_back(line); };
    exchange = std::make_unique<Exchange>(options, pulse);
  }
  Node(const Node&) = delete;
  void restart(uint64_t incarnation, uint64_t epoch) {
    options.incarnation = incarnation;
    options.epoch = epoch;
    exchange = std::make_unique<Exchange>(options, pulse);
  }
  std::shared_ptr<AnswerSlot> ask(const std::string& peer, Instant now, Millis deadline = Millis(10'000)) {
    OpenRequest request;
    request.peer = peer;
    request.type = Echo::kName;
    request.message = encode(Echo{"hello", {}});
    request.slot = std::make_shared<AnswerSlot>();
    request.slot->peer = peer;
    request.slot->what = "echo 1";
    request.deadline = now + deadline;
    const auto slot = request.slot;
    exchange->ask(std::move(request), now);
    return slot;
  }
};

// An asker and a server; `lose` says which letters never arrive.
struct Pair {
  Node asker{"a", 1, 1, true}, server{"s"};
  Instant now{};
  int handled = 0;
  std::function<bool(const Letter&)> lose = [](const Letter&) { return false; };

  void move() {
    for (bool moved = true; moved;) {
      moved = false;
      for (Letter& letter : asker.exchange->take_letters()) {
        moved = true;
        if (!lose(letter)) server.exchange->request_arrived("a#1", "", letter.frames, now);
      }
      for (Letter& letter : server.exchange->take_letters()) {
        moved = true;
        if (!lose(letter)) asker.exchange->answer_arrived("s", letter.frames, now);
      }
    }
  }
  void handle_all() {
    for (auto& queue = server.exchange->queue(); !queue.empty(); queue.pop_front()) {
      ++handled;
      server.exchange->answer(queue.front().src, queue.front().id, {"reply", "echo", encode(Echo{"hello", {}})});
    }
    move();
  }
  void advance(Millis by) {
    now += by;
    asker.exchange->tick(now);
    server.exchange->tick(now);
    move();
  }
};

TEST(Exchange, ALostRequestIsSentAgain) {
  Pair pair;
  int losses = 2;
  pair.lose = [&](const Letter& letter) { return letter.to_peer && losses-- > 0; };
  const auto slot = pair.asker.ask("s", pair.now);
  pair.move();
  EXPECT_TRUE(pair.server.exchange->queue().empty());
  pair.advance(Millis(300));
  pair.advance(Millis(600));
  pair.handle_all();
  EXPECT_TRUE(slot->done);
  EXPECT_EQ(pair.handled, 1);
}

TEST(Exchange, ALostAnswerIsGivenAgainWithoutHandlingTwice) {
  Pair pair;
  int losses = 2;
  pair.lose = [&](const Letter& letter) { return !letter.to_peer && losses-- > 0; };
  const auto slot = pair.asker.ask("s", pair.now);
  pair.move();
  pair.handle_all();
  EXPECT_FALSE(slot->done);
  pair.advance(Millis(300));
  EXPECT_FALSE(slot->done);
  pair.advance(Millis(600));
  EXPECT_TRUE(slot->done);
  EXPECT_EQ(pair.handled, 1);
}

TEST(Exchange, ACopyOfARequestInFlightIsAcknowledgedOnly) {
  Pair pair;
  int acknowledged = 0;
  pair.lose = [&](const Letter& letter) {
    acknowledged += !letter.to_peer && decode<Envelope>(letter.frames[0]).kind == letter_kind::kAck;
    return false;
  };
  const auto slot = pair.asker.ask("s", pair.now);
  pair.move();
  pair.advance(Millis(300));
  EXPECT_EQ(pair.server.exchange->queue().size(), 1U);
  EXPECT_FALSE(slot->done);
  EXPECT_EQ(acknowledged, 1);
  pair.advance(Millis(1000));  // acknowledged: nothing is due
  pair.handle_all();
  EXPECT_TRUE(slot->done);
}

TEST(Exchange, AReplacedServerGetsTheRequestAsNewWork) {
  Pair pair;
  const auto slot = pair.asker.ask("s", pair.now);
  pair.move();
  pair.handled = 1;  // the first life took it, and died
  pair.server.restart(2, 1);
  pair.advance(Millis(300));
  pair.handle_all();
  EXPECT_TRUE(slot->done);
  EXPECT_EQ(pair.handled, 2);
}

TEST(Exchange, ADeadlineNamesPeerOperationAndAsker) {
  Pair pair;
  pair.lose = [](const Letter&) { return true; };
  const auto slot = pair.asker.ask("s", pair.now, Millis(1000));
  pair.move();
  for (int i = 0; i < 10; ++i) pair.advance(Millis(100));
  ASSERT_TRUE(slot->done && slot->failure);
  EXPECT_STREQ(RemoteFailure(*slot->failure).what(),
               "s: echo 1: no answer to a within 1000 ms, sent 3 times, never acknowledged [deadline]");
}

TEST(Exchange, LosesNothingAndHandlesOnceOverAChannelThatLosesAThird) {
  std::mt19937 random(3);
  Pair pair;
  pair.lose = [&](const Letter&) { return random() % 3 == 0; };
  std::vector<std::shared_ptr<AnswerSlot>> slots;
  for (int i = 0; i < 500; ++i) {
    slots.push_back(pair.asker.ask("s", pair.now, Millis(100'000)));
    pair.advance(Millis(50));
    pair.handle_all();
  }
  for (int i = 0; i < 400; ++i) {
    pair.advance(Millis(100));
    pair.handle_all();
  }
  for (const auto& slot : slots) EXPECT_TRUE(slot->done && !slot->failure);
  EXPECT_EQ(pair.handled, 500);
}

// ---- fencing --------------------------------------------------------------------------------------------------------

struct Fencing : testing::Test {
  Node server{"s", 1, 5};
  // One request as `change` makes it; true when it reached the queue.
  bool taken(const std::function<void(Envelope&)>& change, const std::string& authenticated = "") {
    Envelope envelope;
    envelope.kind = letter_kind::kRequest;
    envelope.type = Echo::kName;
    envelope.id = ++id_;
    envelope.run = "r";
    envelope.epoch = 5;
    envelope.src = "a";
    envelope.inc = 3;
    envelope.deadline_ms = 1000;
    change(envelope);
    const std::size_t before = server.exchange->queue().size();
    server.exchange->request_arrived("a#3", authenticated, {encode(envelope).body, encode(Echo{}).body}, Instant{});
    return server.exchange->queue().size() > before;
  }
  uint64_t id_ = 0;
};

TEST_F(Fencing, DropsAnotherRunAnOlderEpochAndAnOlderIncarnation) {
  EXPECT_TRUE(taken([](Envelope&) {}));
  EXPECT_FALSE(taken([](Envelope& e) { e.run = "other"; }));
  EXPECT_FALSE(taken([](Envelope& e) { e.epoch = 4; }));
  EXPECT_FALSE(taken([](Envelope& e) { e.inc = 2; }));
  EXPECT_FALSE(taken([](Envelope& e) { e.kind = "reply"; }));
  EXPECT_EQ(server.exchange->dropped(), 4U);
  EXPECT_EQ(server.logged.size(), 1U);  // once per peer
}

TEST_F(Fencing, AdoptsANewerEpoch) {
  EXPECT_TRUE(taken([](Envelope& e) { e.epoch = 6; }));
  EXPECT_FALSE(taken([](Envelope& e) { e.epoch = 5; }));
}

TEST_F(Fencing, TheRuntimesOwnMessagesPassWhateverTheirEpoch) {
  EXPECT_TRUE(taken([](Envelope& e) {
    e.epoch = 1;
    e.type = Heartbeat::kName;
    e.deadline_ms = 0;
  }));
}

TEST_F(Fencing, DropsANodeThatClaimsToBeAnother) {
  EXPECT_FALSE(taken([](Envelope&) {}, "b"));
  EXPECT_TRUE(taken([](Envelope&) {}, "a"));
}

TEST_F(Fencing, AnotherProtocolVersionGetsOneClearFailure) {
  EXPECT_FALSE(taken([](Envelope& e) { e.v = 2; }));
  const auto letters = server.exchange->take_letters();
  ASSERT_EQ(letters.size(), 1U);
  EXPECT_EQ(decode<Envelope>(letters[0].frames[0]).corr, 1U);
  const auto failure = decode<Failure>(letters[0].frames[1]);
  EXPECT_EQ(failure.code, failure_code::kVersion);
  EXPECT_EQ(failure.message, "s speaks protocol version 1, the asker 2");
}

TEST(Exchange, AnAnswerInAnotherVersionFailsTheAskAtOnce) {
  Node asker("a");
  const auto slot = asker.ask("s", Instant{});
  const auto request = decode<Envelope>(asker.exchange->take_letters().at(0).frames[0]);
  Envelope answer;
  answer.v = 2;
  answer.kind = letter_kind::kFailure;
  answer.corr = request.id;
  asker.exchange->answer_arrived("s", {encode(answer).body, encode(Ack{}).body}, Instant{});
  ASSERT_TRUE(slot->done && slot->failure);
  EXPECT_EQ(slot->failure->code, failure_code::kVersion);
  EXPECT_EQ(slot->failure->message, "s speaks protocol version 2, this role 1");
}

TEST(Exchange, AReplacedConductorStopsAndItsAsksFail) {
  Pair pair;
  const auto slot = pair.asker.ask("s", pair.now);
  Envelope answer;
  answer.kind = letter_kind::kReply;
  answer.run = "r";
  answer.epoch = 2;
  answer.src = "s";
  answer.inc = 1;
  pair.asker.exchange->answer_arrived("s", {encode(answer).body, encode(Ack{}).body}, pair.now);
  EXPECT_TRUE(pair.asker.exchange->stopping());
  ASSERT_TRUE(slot->failure);
  EXPECT_EQ(slot->failure->code, failure_code::kFenced);
}

TEST(Exchange, AStoppingNodeRefusesNewRequestsButAnswersStatus) {
  Pair pair;
  const auto queued = pair.asker.ask("s", pair.now);
  pair.move();
  pair.server.exchange->stop("enough");
  pair.move();
  ASSERT_TRUE(queued->failure);
  EXPECT_EQ(queued->failure->code, failure_code::kStopping);
  const auto later = pair.asker.ask("s", pair.now);
  pair.move();
  EXPECT_TRUE(later->failure);
}

// Every letter a stranger can send is dropped, refused or handled; none ends the process.
TEST(ExchangeFuzz, MutatedLettersLeaveTheNodeAnswering) {
  const uint64_t count = fuzz::inputs(50'000);
  std::mt19937_64 random(fuzz::seed(11));
  Pair pair;
  pair.asker.ask("s", pair.now);
  const auto letters = pair.asker.exchange->take_letters();
  for (uint64_t i = 0; i < count; ++i) {
    std::vector<Frame> frames = letters.at(0).frames;
    const std::size_t victim = random() % frames.size();
    std::string bytes(frames[victim].text());
    for (auto n = random() % 3 + 1; n > 0 && !bytes.empty(); --n) {
      const std::size_t at = random() % bytes.size();
      if (random() % 2 == 0) {
        bytes[at] = static_cast<char>(random());
      } else {
        bytes.erase(at, random() % 5);
      }
    }
    frames[victim] = Frame::of(bytes);
    if (random() % 8 == 0) frames.resize(random() % (frames.size() + 1));
    const std::string connection(random() % 6, static_cast<char>(random()));
    pair.server.exchange->request_arrived(connection, "", frames, pair.now);
    pair.asker.exchange->answer_arrived("s", frames, pair.now);
    if (pair.server.exchange->queue().size() > 1000) pair.server.exchange->queue().clear();
    pair.server.exchange->take_letters();
  }
  EXPECT_GT(pair.server.exchange->dropped(), count / 4);
  EXPECT_LE(pair.server.logged.size(), 1024U);
  Node honest("b", 1, 1'000'000'000);  // whatever epoch the mutations made it adopt
  const auto slot = honest.ask("s", pair.now);
  pair.server.exchange->queue().clear();
  pair.server.exchange->request_arrived("b#1", "", honest.exchange->take_letters().at(0).frames, pair.now);
  EXPECT_EQ(pair.server.exchange->queue().size(), 1U);
}

}  // namespace
}  // namespace troupe
