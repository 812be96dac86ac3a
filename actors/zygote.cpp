#include "actors/zygote.hpp"

#include <linux/close_range.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "actors/clock.hpp"
#include "protocol/wire.hpp"

extern char** environ;

namespace troupe {

// What a new process says once it is set up.
struct Zygote::Begun {
  int64_t pid = 0;
  std::string error;  // why it can't be
  static constexpr std::tuple kFields{Field{"pid", &Begun::pid}, Field{"error", &Begun::error}};
};

namespace {

constexpr Millis kPatience{5'000};  // for a process to be set up
constexpr std::size_t kMaxOrderBytes = std::size_t{128} << 10;

std::span<const char> characters(const Frame& frame) {
  return {reinterpret_cast<const char*>(frame.bytes.data()), frame.bytes.size()};
}

// The next message; nothing when the other side has closed, or sent what is none.
template <class M>
std::optional<M> receive(int socket, Descriptor& descriptor) {
  std::string bytes(kMaxOrderBytes, '\0');
  const ssize_t length = receive_message(socket, bytes, descriptor);
  if (length <= 0) return std::nullopt;
  bytes.resize(static_cast<std::size_t>(length));
  try {
    return decode<M>(Frame::of(std::move(bytes)));
  } catch (const DecodeError&) {
    return std::nullopt;
  }
}

std::pair<Descriptor, Descriptor> socket_pair() {
  int ends[2]{-1, -1};
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
    throw std::runtime_error(std::string("socket pair: ") + std::strerror(errno));
  return {Descriptor(ends[0]), Descriptor(ends[1])};
}

// While it lives, this process adopts what its children leave behind.
struct Adopting {
  Adopting() { prctl(PR_SET_CHILD_SUBREAPER, 1); }
  ~Adopting() { prctl(PR_SET_CHILD_SUBREAPER, 0); }
};

// Where `ps` reads a process's arguments: the memory in which the kernel laid them and, behind them, the environment,
// into which a text in their place may reach.
class CommandLineText {
 public:
  CommandLineText() {
    std::ifstream file("/proc/self/stat");
    std::string text{std::istreambuf_iterator<char>(file), {}};
    std::istringstream fields(text.substr(std::min(text.size(), text.rfind(')') + 1)));
    constexpr int kBefore = 45;  // fields 3 to 47; 48 is arg_start, 51 env_end
    std::string skipped;
    for (int i = 0; i < kBefore; ++i) fields >> skipped;
    std::uintptr_t begin = 0, arguments_end = 0, environment = 0, end = 0;
    if (!(fields >> begin >> arguments_end >> environment >> end) || begin == 0 || environment != arguments_end) return;
    // The variables go elsewhere.
    static std::vector<char*> variables;
    for (char** at = environ; *at; ++at) variables.push_back(strdup(*at));
    variables.push_back(nullptr);
    environ = variables.data();
    room_ = {reinterpret_cast<char*>(begin), end - begin};
  }
  void show(std::string_view text) const {
    if (room_.empty()) return;
    std::memset(room_.data(), 0, room_.size());
    std::memcpy(room_.data(), text.data(), std::min(text.size(), room_.size() - 1));
  }

 private:
  std::span<char> room_;
};

// ---- the zygote -----------------------------------------------------------------------------------------------------

class Forker {
 public:
  Forker(Zygote::Main main, pid_t owner, int orders) : main_(std::move(main)), owner_(owner), orders_(orders) {}

  [[noreturn]] void serve() {
    text_.show(program_ + " zygote");
    prctl(PR_SET_NAME, "zygote");
    Descriptor report;
    while (const auto order = receive<ProcessOptions>(orders_, report)) {
      // A child's child, orphaned: the owner adopts it.
      const pid_t between = fork();
      if (between == 0) {
        if (fork() == 0) begin(*order, report.get());
        _exit(0);
      }
      if (between > 0) waitpid(between, nullptr, 0);
      report = Descriptor();  // where nothing has begun, the owner sees it closed
    }
    _exit(0);
  }

 private:
  [[noreturn]] void begin(const ProcessOptions& order, int report) {
    for (Millis waited(0); getppid() != owner_; waited += Millis(1)) {
      if (waited >= kPatience) _exit(127);
      std::this_thread::sleep_for(Millis(1));
    }
    Zygote::Begun begun{.pid = getpid(), .error = {}};
    try {
      if (!ChildPlace(order, owner_).enter()) begun.error = order.argv[0] + ": " + std::strerror(errno);
    } catch (const std::runtime_error& error) {
      begun.error = error.what();
    }
    const bool heard = send_message(report, characters(encode(begun).body), -1);
    if (!heard || !begun.error.empty()) _exit(127);
    syscall(SYS_close_range, 3U, ~0U, 0U);
    for (const auto& [name, value] : order.env)
      value.empty() ? unsetenv(name.c_str()) : setenv(name.c_str(), value.c_str(), 1);
    std::vector<std::string> words = order.argv;
    std::vector<char*> argv;
    std::string shown = program_;
    for (std::string& word : words) {
      if (!argv.empty()) shown += " " + word;
      argv.push_back(word.data());
    }
    argv.push_back(nullptr);
    text_.show(shown);
    std::exit(main_(static_cast<int>(words.size()), argv.data()));
  }

  const Zygote::Main main_;
  const pid_t owner_;
  const int orders_;
  const std::string program_ = program_invocation_short_name;
  const CommandLineText text_;  // behind the name, which lies where the text will
};

}  // namespace

Zygote::Zygote(Main main) {
  auto [ours, its] = socket_pair();
  const pid_t owner = getpid();
  std::fflush(nullptr);  // or every child would write it once more
  const pid_t pid = fork();
  if (pid < 0) throw std::runtime_error(std::string("fork: ") + std::strerror(errno));
  if (pid == 0) {
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != owner) _exit(127);
    const int orders = dup2(its.get(), 3);
    syscall(SYS_close_range, 4U, ~0U, 0U);
    Forker(std::move(main), owner, orders).serve();
  }
  process_ = Process::adopt(pid);
  orders_ = std::move(ours);
}

Zygote::~Zygote() = default;

std::optional<Zygote::Begun> Zygote::order(const ProcessOptions& options) {
  auto [ours, its] = socket_pair();
  const Adopting adopting;
  if (!send_message(orders_.get(), characters(encode(options).body), its.get())) return std::nullopt;
  its = Descriptor();
  pollfd answer{ours.get(), POLLIN, 0};
  const Instant until = std::chrono::steady_clock::now() + kPatience;
  int ready = 0;
  do {
    const Millis left = std::chrono::ceil<Millis>(until - std::chrono::steady_clock::now());
    ready = poll(&answer, 1, static_cast<int>(std::max(left, Millis(0)).count()));
  } while (ready < 0 && errno == EINTR);
  if (ready == 0) {
    process_.reset();                 // it hangs
    shutdown(ours.get(), SHUT_RDWR);  // a process that is set up from now on can't say so, and ends
  }
  Descriptor none;
  return receive<Begun>(ours.get(), none);
}

std::optional<Process> Zygote::spawn(const ProcessOptions& options) {
  if (!process_) return std::nullopt;
  const std::optional<Begun> begun = order(options);
  if (!begun) {
    process_.reset();
    return std::nullopt;
  }
  Process child = Process::adopt(static_cast<pid_t>(begun->pid));
  if (!begun->error.empty()) throw std::runtime_error(begun->error);
  return child;
}

}  // namespace troupe
