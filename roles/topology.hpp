// A topology: what a run is made of. This is the file's shape alone; launcher/topology.hpp reads a user's file, checks
// it as a whole and writes RUN/topology.json with every default filled in, from which role processes start.
// docs/topology.md explains every key.
#pragma once

#include <array>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "actors/supervision.hpp"
#include "core/config.hpp"
#include "protocol/types.hpp"

namespace troupe {

enum class RunMode { kProcesses, kStandalone };
enum class ControlTransport { kIpc, kTcp };

template <>
struct EnumNames<RunMode> {
  static constexpr std::array kNames{std::pair<std::string_view, RunMode>{"processes", RunMode::kProcesses},
                                     std::pair<std::string_view, RunMode>{"standalone", RunMode::kStandalone}};
};
template <>
struct EnumNames<OnFailure> {
  static constexpr std::array kNames{std::pair<std::string_view, OnFailure>{"restart", OnFailure::kRestart},
                                     std::pair<std::string_view, OnFailure>{"stop", OnFailure::kStop}};
};
template <>
struct EnumNames<ControlTransport> {
  static constexpr std::array kNames{std::pair<std::string_view, ControlTransport>{"ipc", ControlTransport::kIpc},
                                     std::pair<std::string_view, ControlTransport>{"tcp", ControlTransport::kTcp}};
};

struct RunSection {
  uint64_t seed = 1;
  bool deterministic = true;           // the same seed gives the same bits, whatever the timing
  RunMode mode = RunMode::kProcesses;  // one process a node, or all nodes in one
  std::string folder = "runs";         // run folders are made in here
  std::string name;                    // of the run's folder; "": ALGORITHM-MODEL-DATE-TIME
  static constexpr std::tuple kFields{
      Field{"seed", &RunSection::seed}, Field{"deterministic", &RunSection::deterministic},
      Field{"mode", &RunSection::mode}, Field{"folder", &RunSection::folder}, Field{"name", &RunSection::name}};
};
TROUPE_FIELDS_COMPLETE(RunSection);

struct PromptsSection {
  Required<std::string> file;         // JSON lines {"prompt", "answer"} to train on
  std::string held_out;               // same form, asked before and after; "": no evaluation
  int64_t max_prompt_tokens = 256;    // a longer prompt is an error
  std::optional<std::string> system;  // system prompt put before every prompt; null: the chat template's own way
  static constexpr std::tuple kFields{
      Field{"file", &PromptsSection::file}, Field{"held_out", &PromptsSection::held_out},
      Field{"max_prompt_tokens", &PromptsSection::max_prompt_tokens}, Field{"system", &PromptsSection::system}};
};
TROUPE_FIELDS_COMPLETE(PromptsSection);

struct NodeSection {
  Required<std::string> name;
  std::string role;            // "": the name
  int64_t count = 1;           // replicas: NAME/0, NAME/1 ...
  int64_t threads = 0;         // of each replica; 0: planned from the host's cores
  std::string device = "cpu";  // "cpu", "cuda" or "cuda:N"
  OnFailure on_failure = OnFailure::kRestart;
  bool external = false;            // started by somebody else (a role in another language)
  std::string endpoint;             // where an external node listens; "": in the run's socket folder
  std::vector<std::string> launch;  // put before the role's command line, and must exec it: ip netns exec, numactl
  std::string bind;                 // tcp: ADDRESS or ADDRESS:PORT that it listens on; "": transport.bind, any port
  std::string advertise;            // tcp: HOST:PORT that the others reach it at, where that is not where it listens
  Json config = Json::object();     // the role's own Config
  static constexpr std::tuple kFields{
      Field{"name", &NodeSection::name},           Field{"role", &NodeSection::role},
      Field{"count", &NodeSection::count},         Field{"threads", &NodeSection::threads},
      Field{"device", &NodeSection::device},       Field{"on_failure", &NodeSection::on_failure},
      Field{"external", &NodeSection::external},   Field{"endpoint", &NodeSection::endpoint},
      Field{"launch", &NodeSection::launch},       Field{"bind", &NodeSection::bind},
      Field{"advertise", &NodeSection::advertise}, Field{"config", &NodeSection::config}};
};
TROUPE_FIELDS_COMPLETE(NodeSection);

struct RestartsSection {
  int64_t limit = 5;  // restarts of one node within the window; one more stops the run
  double window_s = 60;
  double lease_s = 30;        // a phase without progress for so long is a hang: the node is restarted
  double load_lease_s = 120;  // the same while a model is loaded
  static constexpr std::tuple kFields{
      Field{"limit", &RestartsSection::limit}, Field{"window_s", &RestartsSection::window_s},
      Field{"lease_s", &RestartsSection::lease_s}, Field{"load_lease_s", &RestartsSection::load_lease_s}};
};
TROUPE_FIELDS_COMPLETE(RestartsSection);

struct TransportSection {
  ControlTransport control = ControlTransport::kIpc;
  std::string bind = "127.0.0.1";  // address that tcp nodes listen on
  double ask_timeout_s = 600;      // deadline of an ask; a role that hangs is found sooner, by its lease
  static constexpr std::tuple kFields{Field{"control", &TransportSection::control},
                                      Field{"bind", &TransportSection::bind},
                                      Field{"ask_timeout_s", &TransportSection::ask_timeout_s}};
};
TROUPE_FIELDS_COMPLETE(TransportSection);

struct Topology {
  RunSection run;
  Required<std::string> model;      // Hugging Face folder or GGUF file; what roles load unless their config says else
  Json algorithm = Json::object();  // {"type": "grpo", ...}, the algorithm's own settings
  PromptsSection prompts;
  Sampling sampling;               // of the training answers
  std::vector<NodeSection> nodes;  // in start order; stopped in reverse
  RestartsSection restarts;
  TransportSection transport;
  static constexpr std::tuple kFields{Field{"run", &Topology::run},
                                      Field{"model", &Topology::model},
                                      Field{"algorithm", &Topology::algorithm},
                                      Field{"prompts", &Topology::prompts},
                                      Field{"sampling", &Topology::sampling},
                                      Field{"nodes", &Topology::nodes},
                                      Field{"restarts", &Topology::restarts},
                                      Field{"transport", &Topology::transport}};
};
TROUPE_FIELDS_COMPLETE(Topology);

inline const std::string& role_of(const NodeSection& node) {
  return node.role.empty() ? *node.name : node.role;
}

// "actor/0", "actor/1": the instances of a node.
std::vector<std::string> instances_of(const NodeSection& node);

// The instances of every node that plays `role`, in topology order.
std::vector<std::string> instances_of_role(const Topology& topology, std::string_view role);

// The node that `instance` ("actor/0") belongs to. Throws std::invalid_argument naming it when there is none.
const NodeSection& node_of(const Topology& topology, const std::string& instance);

// Throws as from_json does.
Topology topology_from(const Json& json, const JsonPath& where);

// RUN/topology.json. Throws as read_config_file and from_json do.
Topology read_run_topology(const std::filesystem::path& run_folder);

}  // namespace troupe
