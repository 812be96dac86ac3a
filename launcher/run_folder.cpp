#include "launcher/run_folder.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <stdexcept>

#include "core/io/disk.hpp"
#include "launcher/endpoints.hpp"
#include "launcher/host.hpp"

namespace troupe {
namespace fs = std::filesystem;
namespace {

std::string utc_now(const char* format) {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[64];
  std::strftime(text, sizeof(text), format, &parts);
  return text;
}

// "models/SmolLM2-135M-Instruct.Q4_1.gguf" -> "smollm2-135m-instruct.q4_1", fit for a folder's name.
std::string short_model_name(const fs::path& model) {
  std::string name = (model.filename().empty() ? model.parent_path() : model).filename().string();
  if (name.ends_with(".gguf")) name.resize(name.size() - 5);
  for (char& c : name) {
    const bool kept = std::isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == '-';
    c = kept ? static_cast<char>(std::tolower(static_cast<unsigned char>(c))) : '-';
  }
  return name.substr(0, 40);
}

fs::path lock_file(const fs::path& run_folder) {
  return run_folder / ".lock";
}

struct flock whole_file(short type) {
  struct flock region {};
  region.l_type = type;
  region.l_whence = SEEK_SET;
  return region;
}

constexpr std::string_view kSocketFolder = "/troupe-XXXXXX";

std::array<std::string, 2> socket_parents() {
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  return {runtime ? runtime : "", "/tmp"};
}

// A folder that was not there: two runs may start in one second.
fs::path new_folder(const fs::path& wanted) {
  fs::create_directories(wanted.parent_path());
  for (int number = 1;; ++number) {
    const fs::path folder = number == 1 ? wanted : fs::path(wanted.string() + "-" + std::to_string(number));
    if (fs::create_directory(folder)) return folder;
  }
}

}  // namespace

fs::path make_run_folder(const Topology& topology, const std::optional<fs::path>& wanted) {
  std::string name = topology.run.name;
  const bool chosen = wanted || !name.empty();
  if (!chosen)
    name = topology.algorithm.value("type", "run") + "-" + short_model_name(*topology.model) + "-" +
           utc_now("%Y%m%d-%H%M%S");
  fs::path folder = fs::absolute(wanted ? *wanted : fs::path(topology.run.folder) / name).lexically_normal();
  if (!chosen) folder = new_folder(folder);
  if (fs::exists(folder / "topology.json"))
    throw std::runtime_error(folder.string() + " holds a run already; go on with it: troupe resume " + folder.string() +
                             ", or give another --run-folder");
  for (const char* sub : {"tensorboard", "journal", "checkpoints", "logs", "export"})
    fs::create_directories(folder / sub);
  return folder;
}

void require_run(const fs::path& folder) {
  if (!fs::is_directory(folder)) throw std::runtime_error("no folder " + folder.string());
  if (!fs::exists(folder / "topology.json"))
    throw std::runtime_error(folder.string() +
                             " holds no run (no topology.json); expected a folder that troupe run made");
}

RunLock::RunLock(const fs::path& run_folder) {
  fd_ = open(lock_file(run_folder).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd_ < 0) throw std::runtime_error("cannot open " + lock_file(run_folder).string() + ": " + std::strerror(errno));
  struct flock region = whole_file(F_WRLCK);
  if (fcntl(fd_, F_SETLK, &region) == 0) return;
  const int reason = errno;
  close(fd_);
  const auto holder = launcher_of(run_folder);
  if (!holder) throw std::runtime_error("cannot lock " + lock_file(run_folder).string() + ": " + std::strerror(reason));
  throw std::runtime_error("run " + run_folder.string() + " is running already, as process " + std::to_string(*holder) +
                           "; see troupe status, troupe stop");
}

RunLock::~RunLock() {
  close(fd_);
}

std::optional<pid_t> launcher_of(const fs::path& run_folder) {
  const int fd = open(lock_file(run_folder).c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) return std::nullopt;
  struct flock region = whole_file(F_WRLCK);
  const bool asked = fcntl(fd, F_GETLK, &region) == 0;
  close(fd);
  return asked && region.l_type != F_UNLCK ? std::optional<pid_t>(region.l_pid) : std::nullopt;
}

SocketFolder::SocketFolder() {
  for (const std::string& parent : socket_parents()) {
    // A socket's address holds 107 bytes: the folder, and up to 40 for an instance's name.
    if (parent.empty() || parent.size() > 40 || access(parent.c_str(), W_OK) != 0) continue;
    std::string name = parent + std::string(kSocketFolder);
    if (!mkdtemp(name.data())) continue;  // mode 0700
    path_ = name;
    return;
  }
  throw std::runtime_error("cannot make a socket folder in $XDG_RUNTIME_DIR or /tmp: " +
                           std::string(std::strerror(errno)));
}

SocketFolder::~SocketFolder() {
  std::error_code ignored;  // a leftover in /tmp must not hide how the run ended
  fs::remove_all(path_, ignored);
}

void remove_left_sockets(const RunFile& before) {
  struct stat facts {};
  const bool left = before.state == "running" && lstat(before.sockets.c_str(), &facts) == 0;
  if (!left || !S_ISDIR(facts.st_mode) || facts.st_uid != geteuid()) return;
  const std::string name(kSocketFolder);
  const std::string prefix = name.substr(0, name.find('X'));
  for (const std::string& parent : socket_parents()) {
    if (parent.empty() || before.sockets.size() != parent.size() + name.size()) continue;
    const std::string made_up = before.sockets.substr(parent.size() + prefix.size());
    if (!before.sockets.starts_with(parent + prefix) || made_up.find('/') != made_up.npos) continue;
    std::error_code ignored;
    fs::remove_all(before.sockets, ignored);
    return;
  }
}

RunFile make_run_file(const Topology& topology, const fs::path& run_folder, const fs::path& sockets,
                      const std::optional<RunFile>& before) {
  RunFile run;
  run.name = before ? before->name : run_folder.filename().string();
  run.starts = before ? before->starts + 1 : 1;
  run.id = run.name + "." + std::to_string(run.starts);
  // The conductor's restarts count up from here; a later start is above all of an earlier one's.
  run.epoch = (run.starts - 1) * 1'000'000 + 1;
  run.pid = getpid();
  run.state = "running";
  run.started = utc_now("%Y-%m-%dT%H:%M:%SZ");
  run.cwd = before ? before->cwd : fs::current_path().string();
  run.sockets = sockets.string();
  run.environment = host_environment();
  assign_endpoints(topology, run);
  return run;
}

void write_run_file(const RunFile& run, const fs::path& run_folder) {
  write_file_atomically(real_disk(), run_folder / "run.json", to_json(run).dump(2) + "\n");
}

}  // namespace troupe
