// What the launcher calls of the roles. Each returns the process's exit code, after one clear line on stderr when it is
// not 0; exceptions may pass to the caller, which prints them as such a line.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "protocol/messages.hpp"
#include "protocol/types.hpp"

namespace troupe {

// One role as a process of its own: reads RUN/topology.json and RUN/run.json (run_file.hpp), builds the role that
// `node` ("actor/0") plays, serves until it is stopped. The supervisor counts incarnation and epoch.
int run_role(const std::filesystem::path& run_folder, const std::string& node, uint64_t incarnation, uint64_t epoch);

// All nodes of RUN/topology.json in this process, over inproc://. Returns when the run has ended.
struct StandaloneHooks {
  std::function<void(const RunStatus&)> on_status;        // about four times a second; any one thread at a time
  std::function<void(const std::string& line)> on_event;  // for people; may come from any thread
  // Raised by Ctrl-C: 1 asks for a clean stop with a checkpoint. (At 2 the launcher ends the process itself.)
  const std::atomic<int>* stop_requests = nullptr;
};
int run_standalone(const std::filesystem::path& run_folder, const StandaloneHooks& hooks);

struct GenerateOptions {
  std::filesystem::path model;  // Hugging Face folder or GGUF file
  std::string prompt;
  bool chat = false;                  // the prompt is a user's turn of the model's chat template
  std::optional<std::string> system;  // with chat
  Sampling sampling;
  uint64_t seed = 1;
  int64_t count = 1;           // answers
  int64_t threads = 0;         // 0: all cores
  std::string dtype = "bf16";  // or "f32"
};
int generate_command(const GenerateOptions& options);

// Writes the policy of a checkpoint of the run (the last one without `step`) as a Hugging Face folder.
int export_command(const std::filesystem::path& run_folder, std::optional<uint64_t> step,
                   const std::filesystem::path& to);

}  // namespace troupe
