// Roles over real sockets: inproc, ipc, and tcp with CURVE.
#include "actors/runner.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <zmq.h>

#include <atomic>
#include <filesystem>
#include <thread>

#include "tests/actors/echo.hpp"
#include "tests/actors/scratch.hpp"

namespace troupe {
namespace {

using namespace std::chrono_literals;

struct EchoRole {
  using Face = EchoFace;
  void handle(const Echo& m, Responder<Echo> responder) {
    ++handled;
    if (m.text == "throw") throw std::runtime_error("the handler broke");
    if (m.text == "bad") throw std::invalid_argument("text: expected something else");
    if (m.text == "drop") return;
    if (m.text == "sleep") std::this_thread::sleep_for(600ms);
    while (m.text == "hold" && !released) std::this_thread::sleep_for(5ms);
    if (m.text == "later") return later.push_back(std::move(responder));
    responder.reply(m);
  }
  Ack handle(const Count&) { return {handled}; }
  bool work() {
    if (later.empty() || !released) return false;
    later.front().reply({"late", {}});
    later.erase(later.begin());
    return true;
  }
  void stop(const std::string& reason) { stopped = reason; }

  void wait_for_handled(uint64_t count) const {
    while (handled < count) std::this_thread::sleep_for(5ms);
  }
  std::atomic<uint64_t> handled{0};
  std::atomic<bool> released{false};
  std::vector<Responder<Echo>> later;
  std::string stopped;
};
static_assert(Serves<EchoRole, EchoFace>);

struct Deaf {
  using Face = EchoFace;
  Ack handle(const Count&) { return {}; }
};
static_assert(!Serves<Deaf, EchoFace>);
struct WrongReply {
  Ack handle(const Echo&) { return {}; }
  Ack handle(const Count&) { return {}; }
};
static_assert(!Serves<WrongReply, EchoFace>);

// A role on a thread of its own until the end of the scope.
struct Served {
  explicit Served(NodeOptions options)
      : mailbox(std::move(options)), thread([this] {
          Context context(mailbox);
          serve(role, context);
        }) {}
  ~Served() {
    mailbox.request_stop("the test is over");
    thread.join();
  }
  EchoRole role;
  SocketMailbox mailbox;
  std::thread thread;
};

NodeOptions node(const std::string& name, const std::string& endpoint, std::map<std::string, Peer> peers = {}) {
  NodeOptions options;
  options.node = name;
  options.run = "test";
  options.endpoint = endpoint;
  options.peers = std::move(peers);
  options.log = [](const std::string&) {};
  return options;
}

std::string code_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const RemoteFailure& error) {
    return error.failure().code;
  }
  return "no failure";
}

class Transports : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    server_ = node("echo/0", endpoint());
    asker_ = node("asker/0", "", {{"echo/0", {endpoint(), ""}}});
    server_.transport = asker_.transport = Transport::create();
    if (GetParam() != "tcp") return;
    server_.keys = make_keys();
    asker_.keys = make_keys();
    server_.transport = Transport::create({{asker_.keys.public_key, "asker/0"}});
    asker_.transport = Transport::create();
    asker_.peers["echo/0"].public_key = server_.keys.public_key;
  }
  std::string endpoint() const {
    if (GetParam() == "inproc") return "inproc://echo";
    if (GetParam() == "ipc") return "ipc://" + scratch_.path() + "/echo";
    return "tcp://127.0.0.1:" + std::to_string(port_);
  }
  Scratch scratch_;
  int port_ = free_port();
  NodeOptions server_, asker_;
};
INSTANTIATE_TEST_SUITE_P(All, Transports, testing::Values("inproc", "ipc", "tcp"),
                         [](const auto& info) { return info.param; });

TEST_P(Transports, CarryMessagesAndTheirTensors) {
  Served served(server_);
  SocketMailbox mailbox(asker_);
  const Handle<EchoFace> echo(mailbox, "echo/0");
  std::vector<float> values(100'000);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  const Echo back = echo.ask(Echo{"hello", Attachment::of(values)}, {.deadline = 30s}).get();
  EXPECT_EQ(back.text, "hello");
  EXPECT_TRUE(std::equal(values.begin(), values.end(), back.data.as<float>().begin(), back.data.as<float>().end()));
  const Echo small = echo.ask(Echo{"s", Attachment::of(std::vector<int64_t>{1, -2, 3})}, {.deadline = 30s}).get();
  EXPECT_EQ(small.data.as<int64_t>()[1], -2);
}

TEST_P(Transports, AnAskMayComeBeforeItsServer) {
  SocketMailbox mailbox(asker_);
  const Handle<EchoFace> echo(mailbox, "echo/0");
  auto pending = echo.ask(Echo{"early", {}}, {.deadline = 30s});
  std::this_thread::sleep_for(50ms);
  EXPECT_FALSE(pending.ready());
  Served served(server_);
  EXPECT_EQ(pending.get().text, "early");
}

TEST_P(Transports, AnswerInAnyOrder) {
  Served served(server_);
  SocketMailbox mailbox(asker_);
  Context context(mailbox);
  const auto echo = context.handle<EchoFace>("echo/0");
  std::vector<Pending<Echo>> pendings;
  pendings.push_back(echo.ask(Echo{"later", {}}, {.deadline = 30s}));
  pendings.push_back(echo.ask(Echo{"now", {}}, {.deadline = 30s}));
  std::vector<std::string> order;
  while (const auto i = context.wait_any(pendings, 30s)) {
    order.push_back(pendings[*i].get().text);
    served.role.released = true;
  }
  EXPECT_EQ(order, (std::vector<std::string>{"now", "late"}));
  EXPECT_FALSE(pendings[0].valid());
}

TEST_P(Transports, CarryFailures) {
  Served served(server_);
  SocketMailbox mailbox(asker_);
  const Handle<EchoFace> echo(mailbox, "echo/0");
  const auto ask = [&](const char* text) {
    return [&echo, text] { echo.ask(Echo{text, {}}, {.deadline = 30s}).get(); };
  };
  EXPECT_EQ(code_of(ask("throw")), failure_code::kHandler);
  EXPECT_EQ(code_of(ask("bad")), failure_code::kBadRequest);
  EXPECT_EQ(code_of(ask("drop")), failure_code::kHandler);
  EXPECT_EQ(code_of(ask("fine")), "no failure");
  try {
    echo.ask(Echo{"throw", {}}, {.deadline = 30s, .what = "echo step 4"}).get();
  } catch (const RemoteFailure& error) {
    EXPECT_STREQ(error.what(), "echo/0: echo step 4: the handler broke [handler]");
  }
}

struct Ipc : testing::Test {
  Scratch scratch;
  std::string endpoint = "ipc://" + scratch.path() + "/echo";
  NodeOptions server = node("echo/0", endpoint);
  NodeOptions asker = node("asker/0", "", {{"echo/0", {endpoint, ""}}});
};

TEST_F(Ipc, TheSocketIsForItsUserOnly) {
  Served served(server);
  struct stat info {};
  ASSERT_EQ(stat((scratch.path() + "/echo").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
}

TEST_F(Ipc, StatusIsAnsweredWhileTheHandlerComputes) {
  Served served(server);
  SocketMailbox mailbox(asker);
  const Handle<EchoFace> echo(mailbox, "echo/0");
  auto slow = echo.ask(Echo{"hold", {}}, {.deadline = 60s});
  served.role.wait_for_handled(1);
  const RoleStatus status = echo.ask(Status{}, {.deadline = 30s}).get();
  EXPECT_EQ(status.phase, "echo");
  const RoleStatus again = echo.ask(Status{}, {.deadline = 30s}).get();
  EXPECT_EQ(again.progress, status.progress);  // nobody but the working thread moves it
  EXPECT_FALSE(slow.ready());
  served.role.released = true;
  EXPECT_EQ(slow.get().text, "hold");
  EXPECT_EQ(served.role.handled, 1U);
}

TEST_F(Ipc, ACopyOfASlowRequestIsNotHandledTwice) {
  Served served(server);
  asker.resend_first = 50ms;
  asker.resend_cap = 100ms;
  SocketMailbox mailbox(asker);
  const Handle<EchoFace> echo(mailbox, "echo/0");
  echo.ask(Echo{"sleep", {}}, {.deadline = 30s}).get();
  EXPECT_EQ(echo.ask(Count{}, {.deadline = 30s}).get().version, 1U);
}

TEST_F(Ipc, AStableIdGetsTheKeptAnswerAcrossTheAskersRestart) {
  Served served(server);
  for (uint64_t incarnation = 1; incarnation <= 2; ++incarnation) {
    asker.incarnation = incarnation;
    SocketMailbox mailbox(asker);
    Handle<EchoFace>(mailbox, "echo/0").ask(Echo{"once", {}}, {.deadline = 30s, .id = 12}).get();
  }
  EXPECT_EQ(served.role.handled, 1U);
}

TEST_F(Ipc, ADeadlineEndsAnAskThatNobodyAnswers) {
  SocketMailbox mailbox(asker);
  const Handle<EchoFace> echo(mailbox, "echo/0");
  try {
    echo.ask(Echo{"x", {}}, {.deadline = 400ms, .what = "echo draw 7"}).get();
    FAIL();
  } catch (const RemoteFailure& error) {
    EXPECT_TRUE(error.is(failure_code::kDeadline));
    const std::string text = error.what();
    EXPECT_NE(text.find("echo/0: echo draw 7: no answer to asker/0 within 400 ms"), std::string::npos) << text;
  }
}

TEST_F(Ipc, WaitingBeatsTheLease) {
  SocketMailbox mailbox(asker);
  auto pending = Handle<EchoFace>(mailbox, "echo/0").ask(Echo{}, {.deadline = 60s, .what = "echo draw 9"});
  const uint64_t before = mailbox.status().progress;
  EXPECT_FALSE(pending.wait_until(std::chrono::steady_clock::now() + 1600ms));
  EXPECT_GE(mailbox.status().progress, before + 2);
  EXPECT_EQ(mailbox.status().detail, "for echo/0 echo draw 9");
}

TEST_F(Ipc, StopIsAcknowledgedAndHeeded) {
  auto served = std::make_unique<Served>(server);
  SocketMailbox mailbox(asker);
  const Handle<EchoFace> echo(mailbox, "echo/0");
  auto begun = echo.ask(Echo{"hold", {}}, {.deadline = 60s});
  served->role.wait_for_handled(1);
  auto queued = echo.ask(Echo{"x", {}}, {.deadline = 60s});
  echo.ask(Stop{"enough"}, {.deadline = 30s}).get();
  EXPECT_EQ(code_of([&] { queued.get(); }), failure_code::kStopping);
  served->role.released = true;
  EXPECT_EQ(begun.get().text, "hold");  // what was begun is finished
  served->thread.join();
  EXPECT_EQ(served->role.stopped, "enough");
  served->thread = std::thread([] {});
}

TEST_F(Ipc, UnknownMessagesAreRefusedByName) {
  Served served(server);
  SocketMailbox mailbox(asker);
  const auto slot = mailbox.ask("echo/0", "sing", encode(Status{}), {.deadline = 30s});
  mailbox.wait_any({&slot, 1}, std::chrono::steady_clock::now() + 30s);
  ASSERT_TRUE(slot->failure);
  EXPECT_EQ(slot->failure->code, failure_code::kUnknownType);
  EXPECT_EQ(slot->failure->message, "this role does not serve 'sing'");
}

TEST_F(Ipc, AMalformedAnswerIsAFailureThatNamesTheKey) {
  Served served(server);
  SocketMailbox mailbox(asker);
  Pending<Ack> pending(mailbox, mailbox.ask("echo/0", Echo::kName, encode(Echo{"x", {}}), {.deadline = 30s}));
  EXPECT_EQ(code_of([&] { pending.get(); }), failure_code::kHandler);
}

TEST_F(Ipc, MalformedFramesOnTheSocketHarmNobody) {
  Served served(server);
  void* context = zmq_ctx_new();
  void* socket = zmq_socket(context, ZMQ_DEALER);
  const int linger = 200;
  zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof linger);
  ASSERT_EQ(zmq_connect(socket, endpoint.c_str()), 0);
  for (const std::string junk : {"", "x", "\x81\xa1v\x01", "\xdd\xff\xff\xff\xff"}) {
    zmq_send(socket, junk.data(), junk.size(), ZMQ_SNDMORE);
    zmq_send(socket, junk.data(), junk.size(), 0);
  }
  for (int i = 0; i < 1000; ++i) zmq_send(socket, "x", 1, ZMQ_SNDMORE);
  zmq_send(socket, "x", 1, 0);
  SocketMailbox mailbox(asker);
  EXPECT_EQ(Handle<EchoFace>(mailbox, "echo/0").ask(Echo{"still here", {}}, {.deadline = 30s}).get().text,
            "still here");
  for (int i = 0; i < 1500 && served.mailbox.status().dropped_frames < 5; ++i) std::this_thread::sleep_for(20ms);
  EXPECT_EQ(served.mailbox.status().dropped_frames, 5U);
  zmq_close(socket);
  zmq_ctx_term(context);
}

TEST_F(Ipc, ThousandAsksAtOnceAreAllAnswered) {
  Served served(server);
  SocketMailbox mailbox(asker);
  const Handle<EchoFace> echo(mailbox, "echo/0");
  std::vector<Pending<Echo>> pendings;
  for (int i = 0; i < 1000; ++i) pendings.push_back(echo.ask(Echo{std::to_string(i), {}}, {.deadline = 30s}));
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(pendings[static_cast<std::size_t>(i)].get().text, std::to_string(i));
  EXPECT_EQ(served.role.handled, 1000U);
}

TEST_F(Ipc, ADriverServesNothing) {
  server.drives = true;
  SocketMailbox driver(server);
  SocketMailbox mailbox(asker);
  const Handle<EchoFace> echo(mailbox, "echo/0");
  EXPECT_EQ(code_of([&] { echo.ask(Count{}, {.deadline = 30s}).get(); }), failure_code::kUnknownType);
  EXPECT_EQ(echo.ask(Status{}, {.deadline = 30s}).get().phase, "load");
}

// ---- tcp: keys ------------------------------------------------------------------------------------------------------

struct Tcp : testing::Test {
  std::string endpoint = "tcp://127.0.0.1:" + std::to_string(free_port());
  KeyPair server_keys = make_keys(), known = make_keys(), unknown = make_keys();
  NodeOptions server_options() {
    NodeOptions options = node("echo/0", endpoint);
    options.keys = server_keys;
    options.transport = Transport::create({{known.public_key, "asker/0"}});
    return options;
  }
  // How an ask ends for a node of this name with these keys, believing in this server key.
  std::string outcome(const std::string& name, const KeyPair& keys, const std::string& server_key,
                      Millis deadline = 1000ms) {
    NodeOptions options = node(name, "", {{"echo/0", {endpoint, server_key}}});
    options.keys = keys;
    SocketMailbox mailbox(options);
    return code_of([&] { Handle<EchoFace>(mailbox, "echo/0").ask(Echo{"hi", {}}, {.deadline = deadline}).get(); });
  }
};

TEST_F(Tcp, OnlyKnownKeysUnderTheirOwnNameGetAWord) {
  Served served(server_options());
  EXPECT_EQ(outcome("asker/0", known, server_keys.public_key, 30s), "no failure");
  EXPECT_EQ(served.role.handled, 1U);
  EXPECT_EQ(outcome("asker/0", unknown, server_keys.public_key), failure_code::kDeadline);
  EXPECT_EQ(outcome("asker/0", known, unknown.public_key), failure_code::kDeadline);
  EXPECT_EQ(served.mailbox.status().dropped_frames, 0U);  // they were not even heard
  for (int i = 0; i < 20 && served.mailbox.status().dropped_frames == 0; ++i)
    EXPECT_EQ(outcome("conductor/0", known, server_keys.public_key), failure_code::kDeadline);
  EXPECT_GE(served.mailbox.status().dropped_frames, 1U);  // heard, but it is not who it says
  EXPECT_EQ(served.role.handled, 1U);
}

TEST_F(Tcp, AStrangersKeyIsToldOfOnce) {
  Served served(server_options());
  testing::internal::CaptureStderr();
  EXPECT_EQ(outcome("asker/0", unknown, server_keys.public_key), failure_code::kDeadline);
  EXPECT_EQ(outcome("asker/0", unknown, server_keys.public_key), failure_code::kDeadline);
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            "a connection from 127.0.0.1 was refused: its key is not of this run\n");
}

TEST_F(Tcp, ALetterWithoutEncryptionIsNotHeard) {
  Served served(server_options());
  void* context = zmq_ctx_new();
  void* socket = zmq_socket(context, ZMQ_DEALER);
  const int linger = 0;
  zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof linger);
  ASSERT_EQ(zmq_connect(socket, endpoint.c_str()), 0);
  zmq_send(socket, "x", 1, ZMQ_DONTWAIT);
  std::this_thread::sleep_for(300ms);
  EXPECT_EQ(served.mailbox.status().dropped_frames, 0U);
  zmq_close(socket);
  zmq_ctx_term(context);
}

TEST_F(Tcp, WithoutKeysIsRefusedBeforeAnythingIsBound) {
  EXPECT_THROW(SocketMailbox(node("echo/0", endpoint)), std::invalid_argument);
}

TEST(MailboxOptions, ThatMakeNoSenseAreNamed) {
  EXPECT_THROW(SocketMailbox(node("", "")), std::invalid_argument);
  SocketMailbox mailbox(node("a", ""));
  EXPECT_THROW(mailbox.ask("nobody", "echo", encode(Status{}), {}), std::invalid_argument);
  EXPECT_THROW(SocketMailbox(node("a", "ipc:///nowhere/at/all")), std::runtime_error);
}

TEST(PrivateDirectory, IsMadeAndChecked) {
  Scratch scratch;
  const std::string path = scratch.path() + "/run";
  make_private_directory(path);
  make_private_directory(path);
  std::filesystem::permissions(path, std::filesystem::perms::others_read, std::filesystem::perm_options::add);
  EXPECT_THROW(make_private_directory(path), std::runtime_error);
}

}  // namespace
}  // namespace troupe
