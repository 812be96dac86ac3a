#include "actors/delivery.hpp"

#include <gtest/gtest.h>

#include "actors/mailbox.hpp"

namespace troupe {
namespace {

constexpr Instant kStart{};

OpenRequest request_to(const std::string& peer, uint64_t id = 0, Millis deadline = Millis(100'000)) {
  OpenRequest request;
  request.peer = peer;
  request.id = id;
  request.deadline = kStart + deadline;
  request.slot = std::make_shared<AnswerSlot>();
  return request;
}

TEST(Outbox, SendsAgainAtDoublingDistancesUpToTheCap) {
  Outbox outbox(1, Millis(300), Millis(2000));
  outbox.add(request_to("a"), kStart);
  std::vector<int64_t> sent;
  for (Millis t(0); t < Millis(9000); t += Millis(10))
    for (auto n = outbox.take_due(kStart + t).size(); n > 0; --n) sent.push_back(t.count());
  EXPECT_EQ(sent, (std::vector<int64_t>{0, 300, 900, 2100, 4100, 6100, 8100}));
}

TEST(Outbox, AnAcknowledgedRequestIsSentInTheSlowRhythm) {
  Outbox outbox(1, Millis(300), Millis(2000));
  OpenRequest& request = outbox.add(request_to("a"), kStart);
  outbox.take_due(kStart);
  outbox.acknowledged(request, kStart + Millis(100));
  EXPECT_TRUE(outbox.take_due(kStart + Millis(2099)).empty());
  EXPECT_EQ(outbox.take_due(kStart + Millis(2100)).size(), 1U);
}

TEST(Outbox, GivesUpAtTheDeadline) {
  Outbox outbox(1, Millis(300), Millis(2000));
  outbox.add(request_to("a", 0, Millis(500)), kStart);
  EXPECT_TRUE(outbox.take_expired(kStart + Millis(499)).empty());
  EXPECT_EQ(outbox.next_event(), kStart);
  outbox.take_due(kStart);
  outbox.take_due(kStart + Millis(300));
  EXPECT_EQ(outbox.next_event(), kStart + Millis(500));
  EXPECT_EQ(outbox.take_expired(kStart + Millis(500)).size(), 1U);
  EXPECT_EQ(outbox.next_event(), Instant::max());
}

TEST(Outbox, NumbersOfTwoIncarnationsNeverMeet) {
  Outbox first(1, Millis(300), Millis(2000)), second(2, Millis(300), Millis(2000));
  uint64_t highest = 0;
  for (int i = 0; i < 100; ++i) highest = std::max(highest, first.add(request_to("a"), kStart).id);
  EXPECT_LT(highest, second.add(request_to("a"), kStart).id);
  EXPECT_GE(highest, kFirstOwnId);
}

TEST(Outbox, DoneBelowIsTheLowestOpenRequestOfThatPeer) {
  Outbox outbox(1, Millis(300), Millis(2000));
  const uint64_t first = outbox.add(request_to("a"), kStart).id;
  const uint64_t second = outbox.add(request_to("a"), kStart).id;
  outbox.add(request_to("a", 5), kStart);  // a stable id says nothing about the numbered ones
  EXPECT_EQ(outbox.done_below("a"), first);
  outbox.close("a", first);
  EXPECT_EQ(outbox.done_below("a"), second);
  EXPECT_EQ(outbox.done_below("b"), second + 1);
}

TEST(Outbox, RefusesAnIdThatIsOpenAlready) {
  Outbox outbox(1, Millis(300), Millis(2000));
  outbox.add(request_to("a", 5), kStart);
  outbox.add(request_to("b", 5), kStart);
  EXPECT_THROW(outbox.add(request_to("a", 5), kStart), std::invalid_argument);
}

TEST(Inbox, TakesARequestOnceAndKeepsItsAnswer) {
  Inbox inbox;
  EXPECT_EQ(inbox.admit("a", 7, {"old", 0}), Inbox::Admission::kNew);
  EXPECT_EQ(inbox.admit("a", 7, {"new", 0}), Inbox::Admission::kInFlight);
  EXPECT_EQ(inbox.admit("b", 7, {"b", 0}), Inbox::Admission::kNew);
  const auto route = inbox.answered("a", 7, {"reply", "ack", encode(Ack{3})});
  ASSERT_TRUE(route);
  EXPECT_EQ(route->connection, "new");  // the connection the asker was last heard on
  EXPECT_FALSE(inbox.answered("a", 7, {"reply", "ack", encode(Ack{4})}));
  EXPECT_EQ(inbox.admit("a", 7, {"new", 0}), Inbox::Admission::kAnswered);
  EXPECT_EQ(decode<Ack>(inbox.kept("a", 7)->message.body).version, 3U);
}

TEST(Inbox, DropsWhatTheAskerHasAndNeverTakesALateCopyForNewWork) {
  Inbox inbox;
  const uint64_t id = kFirstOwnId + 1;
  for (const uint64_t each : {id, id + 1, uint64_t{12}}) {
    inbox.admit("a", each, {"c", 0});
    inbox.answered("a", each, {"reply", "ack", encode(Ack{})});
  }
  inbox.done_below("a", id + 1);
  EXPECT_EQ(inbox.kept("a", id), nullptr);
  EXPECT_NE(inbox.kept("a", id + 1), nullptr);
  EXPECT_NE(inbox.kept("a", 12), nullptr);  // a stable id: its asker may come back after a restart
  EXPECT_EQ(inbox.admit("a", id, {"c", 0}), Inbox::Admission::kDone);
}

TEST(Inbox, KeepsABoundedNumberOfAnswers) {
  Inbox inbox;
  for (uint64_t id = 1; id <= 3 * Inbox::kMaxKept; ++id) {
    inbox.admit("a", id, {"c", 0});
    inbox.answered("a", id, {"reply", "ack", encode(Ack{id})});
  }
  EXPECT_EQ(inbox.kept("a", 2 * Inbox::kMaxKept), nullptr);
  EXPECT_NE(inbox.kept("a", 2 * Inbox::kMaxKept + 1), nullptr);
}

}  // namespace
}  // namespace troupe
