// A role process for the supervisor's tests: test_node MODE FOLDER NODE [argument]
//   echo      serves Echo; notes each begun request in FOLDER/handled; "die"/"hang"/"freeze" are obeyed in incarnation
//   1 drive     asks echo/0 the argument once and ends fail      says why and ends with exit code 3 deaf      ignores
//   Stop and SIGTERM launcher  supervises one deaf node and waits for ever
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "actors/supervisor.hpp"
#include "tests/actors/echo.hpp"

namespace {

using namespace troupe;
using namespace std::chrono_literals;

uint64_t number_from(const char* name) {
  const char* text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 10) : 1;
}

NodeOptions options_of(const std::string& folder, const std::string& node) {
  const auto endpoint = [&](std::string name) {
    name[name.find('/')] = '-';
    return "ipc://" + folder + "/" + name;
  };
  NodeOptions options;
  options.node = node;
  options.incarnation = number_from("TROUPE_INCARNATION");
  options.epoch = number_from("TROUPE_EPOCH");
  options.run = "test";
  options.drives = node == "conductor/0";
  options.endpoint = endpoint(node);
  options.peers = {{"supervisor/0", {endpoint("supervisor/0"), ""}}, {"echo/0", {endpoint("echo/0"), ""}}};
  options.supervisor = "supervisor/0";
  options.heartbeat_every = Millis(50);
  return options;
}

struct EchoRole {
  using Face = EchoFace;
  Echo handle(const Echo& m) {
    std::ofstream(folder + "/handled", std::ios::app) << m.text << " " << incarnation << "\n";
    if (incarnation == 1 && m.text == "die") raise(SIGKILL);
    if (incarnation == 1 && m.text == "freeze") raise(SIGSTOP);
    for (volatile bool hang = incarnation == 1 && m.text == "hang"; hang;) {
    }
    return m;
  }
  Ack handle(const Count&) { return {}; }
  void stop(const std::string& reason) { std::ofstream(folder + "/stopped") << reason << "\n"; }
  std::string folder;
  uint64_t incarnation;
};

int echo(const std::string& folder, const std::string& node) {
  SocketMailbox mailbox(options_of(folder, node));
  Context context(mailbox);
  EchoRole role{folder, mailbox.options().incarnation};
  serve(role, context);
  return 0;
}

struct Asker {
  void run(Context& context) {
    const Echo back = context.handle<EchoFace>("echo/0").ask(Echo{text, {}}, {.deadline = 60s}).get();
    if (back.text != text) throw std::runtime_error("answered with " + back.text);
  }
  std::string text;
};

int drive_once(const std::string& folder, const std::string& node, const std::string& text) {
  SocketMailbox mailbox(options_of(folder, node));
  Context context(mailbox);
  Asker asker{text};
  drive(asker, context);
  return 0;
}

int launcher(const std::string& folder, const std::string& self) {
  SupervisorOptions options;
  options.self = options_of(folder, "supervisor/0");
  options.self.supervisor.clear();
  options.nodes = {{.node = {.name = "deaf/0"}, .process = {.argv = {self, "deaf", folder, "deaf/0"}}}};
  return Supervisor(std::move(options)).run();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  const std::string mode = argv[1], folder = argv[2], node = argv[3];
  try {
    if (mode == "echo") return echo(folder, node);
    if (mode == "drive") return drive_once(folder, node, argc > 4 ? argv[4] : "");
    if (mode == "launcher") return launcher(folder, argv[0]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  if (mode == "fail") {
    std::fprintf(stderr, "the model is not there\n");
    return 3;
  }
  if (mode != "deaf") return 2;
  std::signal(SIGTERM, SIG_IGN);
  std::ofstream(folder + "/pid") << getpid() << std::endl;
  for (;;) std::this_thread::sleep_for(1s);
}
