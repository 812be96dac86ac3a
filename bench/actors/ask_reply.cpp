// Ask and reply between two processes over ipc://, 1 KiB of payload each way: one JSON line with median and p99, and
// with what the same frames cost the same sockets without us: the bound.
//   bench_ask_reply [rounds]
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "actors/runner.hpp"
#include "bench/median.hpp"

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

// The same without us: a ROUTER that gives back what a DEALER sends, both looking again and again. Frames of an
// envelope's and a body's size.
constexpr std::size_t kFrames[]{180, 1040};

// One whole message; its last part's size.
std::size_t receive_bare(void* socket, std::vector<zmq_msg_t>& parts) {
  parts.clear();
  do {
    zmq_msg_init(&parts.emplace_back());
    while (zmq_msg_recv(&parts.back(), socket, ZMQ_DONTWAIT) < 0) sched_yield();
  } while (zmq_msg_more(&parts.back()));
  return zmq_msg_size(&parts.back());
}

void answer_bare(const std::string& endpoint) {
  void* socket = zmq_socket(zmq_ctx_new(), ZMQ_ROUTER);
  zmq_bind(socket, endpoint.c_str());
  for (std::vector<zmq_msg_t> parts; receive_bare(socket, parts) == kFrames[1];)
    for (std::size_t i = 0; i < parts.size(); ++i)
      zmq_msg_send(&parts[i], socket, i + 1 < parts.size() ? ZMQ_SNDMORE : 0);
}

double bare_median_us(const std::string& endpoint, int rounds) {
  const pid_t child = fork();
  if (child == 0) {
    answer_bare(endpoint);
    _exit(0);
  }
  void* context = zmq_ctx_new();
  void* socket = zmq_socket(context, ZMQ_DEALER);
  zmq_connect(socket, endpoint.c_str());
  const std::string bytes(kFrames[1], 'x');
  std::vector<double> microseconds;
  std::vector<zmq_msg_t> parts;
  for (int i = 0; i < rounds + 100; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    zmq_send(socket, bytes.data(), kFrames[0], ZMQ_SNDMORE);
    zmq_send(socket, bytes.data(), kFrames[1], 0);
    receive_bare(socket, parts);
    const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - begin;
    if (i >= 100) microseconds.push_back(took.count());
    for (zmq_msg_t& part : parts) zmq_msg_close(&part);
  }
  zmq_send(socket, "", 0, 0);  // the end
  waitpid(child, nullptr, 0);
  zmq_close(socket);
  zmq_ctx_term(context);
  return bench::median(microseconds);
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 20'000;
  std::string folder = (std::filesystem::temp_directory_path() / "troupe-bench-XXXXXX").string();
  if (!mkdtemp(folder.data())) return 1;
  const double bare = bare_median_us("ipc://" + folder + "/bare", rounds);
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
  std::ranges::sort(microseconds);
  const double middle = bench::median(microseconds);
  std::printf(
      "{\"bench\": \"ask_reply\", \"transport\": \"ipc\", \"payload_bytes\": 1024, \"rounds\": %d, "
      "\"median_us\": %.1f, \"p99_us\": %.1f, \"bare_median_us\": %.1f, \"ratio\": %.2f}\n",
      rounds, middle, microseconds[microseconds.size() * 99 / 100], bare, middle / bare);
}
