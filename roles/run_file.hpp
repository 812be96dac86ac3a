// RUN/run.json: where the processes of a run find each other. The launcher writes it before it starts them; roles,
// `troupe status` and roles in other languages read it. Keys are listed in docs/topology.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "actors/mailbox.hpp"
#include "core/config.hpp"

namespace troupe {

struct RunFile {
  std::string name;     // of the run, its folder's when it began
  std::string id;       // NAME.START: stands in every envelope, so that no letter of an earlier start is taken
  uint64_t starts = 1;  // how often the run was started (1, then +1 at every resume)
  uint64_t epoch = 1;   // the conductor's first epoch in this start
  int64_t pid = 0;      // of the launcher
  std::string state;    // "running", "done", "stopped", "failed"
  std::string started;  // of this start, UTC, 2026-01-31T12:00:00Z
  std::string cwd;      // what relative paths in role configs are relative to
  std::string sockets;  // private folder (mode 0700) with ipc sockets and secret keys; gone when the run has ended
  std::map<std::string, std::string> endpoints;    // by node instance, "supervisor" included
  std::map<std::string, std::string> listen;       // where an instance listens, if not at its endpoint
  std::map<std::string, std::string> public_keys;  // CURVE, by node instance; empty without tcp
  std::map<std::string, std::string> environment;  // of the host, for the report
  static constexpr std::tuple kFields{Field{"name", &RunFile::name},
                                      Field{"id", &RunFile::id},
                                      Field{"starts", &RunFile::starts},
                                      Field{"epoch", &RunFile::epoch},
                                      Field{"pid", &RunFile::pid},
                                      Field{"state", &RunFile::state},
                                      Field{"started", &RunFile::started},
                                      Field{"cwd", &RunFile::cwd},
                                      Field{"sockets", &RunFile::sockets},
                                      Field{"endpoints", &RunFile::endpoints},
                                      Field{"listen", &RunFile::listen},
                                      Field{"public_keys", &RunFile::public_keys},
                                      Field{"environment", &RunFile::environment}};
};
TROUPE_FIELDS_COMPLETE(RunFile);

// Throws as read_config_file and from_json do.
RunFile read_run_file(const std::filesystem::path& run_folder);

// "actor/0" -> "actor-0": the instance in names of sockets, logs and keys.
std::string file_name_of(std::string instance);

// Secret key of an instance, written by the launcher with mode 0600 where the run speaks tcp.
std::filesystem::path secret_key_file(const RunFile& run, const std::string& instance);

// The node that `troupe status` asks as: it has keys, but no endpoint and no heartbeats.
inline constexpr std::string_view kStatusNode = "status";

// What an instance's mailbox needs: its endpoint, every other instance as a peer, the supervisor for heartbeats, its
// keys and the allow-list. `drives` is true for the conductor. Throws std::invalid_argument for an unknown instance and
// std::runtime_error when its secret key can't be read.
NodeOptions node_options(const RunFile& run, const std::string& instance, uint64_t incarnation, uint64_t epoch,
                         bool drives);

}  // namespace troupe
