#include "actors/process.hpp"

#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <stdexcept>

extern char** environ;

namespace troupe {
namespace {

std::vector<std::string> environment(const std::map<std::string, std::string>& changes) {
  std::vector<std::string> result;
  for (char** entry = environ; *entry; ++entry) {
    const std::string_view text(*entry);
    if (!changes.contains(std::string(text.substr(0, text.find('='))))) result.emplace_back(text);
  }
  for (const auto& [name, value] : changes)
    if (!value.empty()) result.push_back(name + "=" + value);
  return result;
}

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (const std::string& text : texts) result.push_back(const_cast<char*>(text.c_str()));
  result.push_back(nullptr);
  return result;
}

// Everything the child needs, made before the fork: after it only async-signal-safe calls are allowed, for other
// threads of the parent may have held any lock.
struct ChildPlan {
  std::vector<char*> argv, env;
  ChildPlace place;
  int error_fd;
};

[[noreturn]] void become(const ChildPlan& plan) {
  if (plan.place.enter()) {
    syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC);
    execve(plan.argv[0], plan.argv.data(), plan.env.data());
  }
  const int error = errno;
  [[maybe_unused]] const auto written = write(plan.error_fd, &error, sizeof error);
  _exit(127);
}

}  // namespace

std::string ExitStatus::text() const {
  if (signal == 0) return "exit code " + std::to_string(code);
  const char* name = strsignal(signal);
  return "signal " + std::to_string(signal) + " (" + (name ? name : "?") + ")";
}

std::map<std::string, std::string> thread_environment(int threads) {
  const std::string count = std::to_string(std::max(threads, 1));
  return {
      {"OMP_NUM_THREADS", count}, {"MKL_NUM_THREADS", count}, {"OMP_WAIT_POLICY", "passive"}, {"GOMP_SPINCOUNT", "0"}};
}

ChildPlace::ChildPlace(const ProcessOptions& options, pid_t parent)
    : pin_(!options.cpus.empty()), parent_(parent), null_(open("/dev/null", O_RDONLY | O_CLOEXEC)) {
  CPU_ZERO(&cpus_);
  for (int cpu : options.cpus) CPU_SET(static_cast<std::size_t>(cpu), &cpus_);
  if (!options.log_path.empty())
    log_ = Descriptor(open(options.log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!null_.valid() || (!options.log_path.empty() && !log_.valid()))
    throw std::runtime_error(options.argv[0] + ": " + options.log_path + ": " + std::strerror(errno));
}

bool ChildPlace::enter() const noexcept {
  setpgid(0, 0);
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) return false;
  if (getppid() != parent_) _exit(127);  // it died before the line above
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  for (int number : {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGCHLD, SIGQUIT}) std::signal(number, SIG_DFL);
  if (pin_) sched_setaffinity(0, sizeof cpus_, &cpus_);
  dup2(null_.get(), STDIN_FILENO);
  return !log_.valid() || (dup2(log_.get(), STDOUT_FILENO) >= 0 && dup2(log_.get(), STDERR_FILENO) >= 0);
}

Process Process::spawn(const ProcessOptions& options) {
  if (options.argv.empty()) throw std::runtime_error("a process needs a program");
  int errors[2]{-1, -1};
  if (pipe2(errors, O_CLOEXEC) != 0) throw std::runtime_error(options.argv[0] + ": " + std::strerror(errno));
  const Descriptor error_in(errors[0]);
  Descriptor error_out(errors[1]);
  const std::vector<std::string> env = environment(options.env);
  pid_t pid = -1;
  {
    const ChildPlan plan{pointers(options.argv), pointers(env), ChildPlace(options, getpid()), error_out.get()};
    pid = fork();
    if (pid == 0) become(plan);
  }
  int error = pid < 0 ? errno : 0;
  error_out = Descriptor();
  if (pid > 0 && read(error_in.get(), &error, sizeof error) <= 0) error = 0;  // closed by a successful exec
  if (error != 0) {
    if (pid > 0) waitpid(pid, nullptr, 0);
    throw std::runtime_error(options.argv[0] + ": can't be started: " + std::strerror(error));
  }
  return adopt(pid);
}

Process Process::adopt(pid_t child) {
  return Process(child, Descriptor(static_cast<int>(syscall(SYS_pidfd_open, child, 0))));
}

Process& Process::operator=(Process&& other) noexcept {
  std::swap(pid_, other.pid_);
  std::swap(pidfd_, other.pidfd_);
  std::swap(status_, other.status_);
  return *this;
}

Process::~Process() {
  if (pid_ <= 0 || status_) return;
  kill(-pid_, SIGKILL);
  kill(pid_, SIGKILL);  // it may not have made its group yet
  waitpid(pid_, nullptr, 0);
}

void Process::signal(int number) {
  if (pid_ > 0 && !status_) kill(pid_, number);
}

std::optional<ExitStatus> Process::poll() {
  if (status_ || pid_ <= 0) return status_;
  siginfo_t info{};
  if (waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid != pid_)
    return std::nullopt;
  kill(-pid_, SIGKILL);  // before it is reaped: until then its number, and its group's, can't be another's
  int raw = 0;
  waitpid(pid_, &raw, 0);
  status_ = WIFSIGNALED(raw) ? ExitStatus{0, WTERMSIG(raw)} : ExitStatus{WEXITSTATUS(raw), 0};
  return status_;
}

std::string tail(const std::string& path, int lines, std::uintmax_t skipped) {
  constexpr std::streamoff kMostBytes = 16 << 10;
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return "";
  const std::streamoff size = file.tellg();
  const std::streamoff from = std::min(size, std::max(static_cast<std::streamoff>(skipped), size - kMostBytes));
  std::string text(static_cast<std::size_t>(size - from), '\0');
  file.seekg(from);
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  while (!text.empty() && text.back() == '\n') text.pop_back();
  std::size_t begin = text.size();
  for (int i = 0; i < lines && begin != std::string::npos && begin > 0; ++i) begin = text.rfind('\n', begin - 1);
  return begin == std::string::npos || begin == 0 ? text : text.substr(begin + 1);
}

}  // namespace troupe
