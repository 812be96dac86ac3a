// A run's folder and what the launcher keeps in it:
//   topology.json  every default filled in      run.json     where the processes find each other
//   metrics.jsonl  a line per step              tensorboard/ the same as event files
//   journal/       the batches trained on       checkpoints/ to go on from
//   logs/          a file per process           export/      the trained model
//   summary.json, report.html                   .lock        held by the launcher while the run is alive
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <optional>
#include <string>

#include "roles/run_file.hpp"
#include "roles/topology.hpp"

namespace troupe {

// The folder a new run goes to: `wanted`, or RUN.FOLDER/NAME, NAME made of algorithm, model and time (UTC) when the
// topology gives none (then "-2", "-3" ... where that is taken). Makes it with its subfolders. Throws
// std::runtime_error when it holds a run already.
std::filesystem::path make_run_folder(const Topology& topology, const std::optional<std::filesystem::path>& wanted);

// Throws std::runtime_error with one clear line unless `folder` holds a run.
void require_run(const std::filesystem::path& folder);

// Held by the launcher of a run as long as it lives; the kernel lets go of it when the process dies.
class RunLock {
 public:
  // Throws std::runtime_error naming the process that holds it.
  explicit RunLock(const std::filesystem::path& run_folder);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  int fd_ = -1;
};

// The launcher that holds the run's lock, if one does. Not for the process that holds it itself.
std::optional<pid_t> launcher_of(const std::filesystem::path& run_folder);

// A private folder for ipc sockets and keys of one start, under $XDG_RUNTIME_DIR or /tmp; removed with its content at
// the end of scope. Its path is short enough for socket addresses.
class SocketFolder {
 public:
  SocketFolder();
  ~SocketFolder();
  SocketFolder(const SocketFolder&) = delete;
  SocketFolder& operator=(const SocketFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// Removes the socket folder that a launcher which was killed has left, with the secret keys in it. Only for whoever
// holds the run's lock, and only a folder of this user that SocketFolder could have made.
void remove_left_sockets(const RunFile& before);

// Endpoints, keys and identity of this start; `sockets` receives the secret keys where the run speaks tcp.
// `before` is the run's file of its last start, for a resume.
RunFile make_run_file(const Topology& topology, const std::filesystem::path& run_folder,
                      const std::filesystem::path& sockets, const std::optional<RunFile>& before);
void write_run_file(const RunFile& run, const std::filesystem::path& run_folder);

}  // namespace troupe
