// Ask and reply between two processes over ipc://, 1 KiB of payload each way: one JSON line with median and p99.
//   bench_ask_reply [rounds]
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "actors/runner.hpp"

namespace {

using namespace troupe;

struct Echo {
  static constexpr std::string_view kName = "echo";
  using Reply = Echo;
  std::string payload;
  static constexpr std::tuple kFields{Field{"payload", &Echo::payload}};
};
TROUPE_FIELDS_COMPLETE(Echo);

struct EchoFace {
  using Accepts = Messages<Echo>;
};

struct EchoRole {
  using Face = EchoFace;
  Echo handle(const Echo& m) { return m; }
};

void answer(const std::string& endpoint) {
  SocketMailbox mailbox({.node = "echo/0", .run = "bench", .endpoint = endpoint});
  Context context(mailbox);
  EchoRole role;
  serve(role, context);
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 20'000;
  std::string folder = (std::filesystem::temp_directory_path() / "troupe-bench-XXXXXX").string();
  if (!mkdtemp(folder.data())) return 1;
  const std::string endpoint = "ipc://" + folder + "/echo";
  const pid_t child = fork();
  if (child == 0) {
    answer(endpoint);
    _exit(0);
  }
  std::vector<double> microseconds;
  {
    SocketMailbox mailbox({.node = "asker/0", .run = "bench", .peers = {{"echo/0", {endpoint, ""}}}});
    const Handle<EchoFace> echo(mailbox, "echo/0");
    const Echo message{std::string(1024, 'x')};
    for (int i = 0; i < rounds + 100; ++i) {
      const auto begin = std::chrono::steady_clock::now();
      echo.ask(message).get();
      const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - begin;
      if (i >= 100) microseconds.push_back(took.count());
    }
    mailbox.ask("echo/0", Stop::kName, encode(Stop{"done"}), {});
    usleep(100'000);
  }
  waitpid(child, nullptr, 0);
  std::filesystem::remove_all(folder);
  std::sort(microseconds.begin(), microseconds.end());
  std::printf(
      "{\"bench\": \"ask_reply\", \"transport\": \"ipc\", \"payload_bytes\": 1024, \"rounds\": %d, "
      "\"median_us\": %.1f, \"p99_us\": %.1f}\n",
      rounds, microseconds[microseconds.size() / 2], microseconds[microseconds.size() * 99 / 100]);
}
