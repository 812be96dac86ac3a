#include "launcher/topology_check.hpp"

#include <arpa/inet.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <map>

#include "core/data/prompts.hpp"
#include "launcher/spawn.hpp"
#include "launcher/thread_plan.hpp"

namespace troupe {
namespace {

// Names become folders, sockets, log files and arguments of processes: nothing that a shell or a path could read.
bool plain_name(const std::string& name, std::size_t max_size, bool upper_and_dots) {
  if (name.empty() || name.size() > max_size || !std::isalnum(static_cast<unsigned char>(name[0]))) return false;
  if (name.find("..") != name.npos) return false;
  return std::ranges::all_of(name, [&](unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
           (upper_and_dots && ((c >= 'A' && c <= 'Z') || c == '.'));
  });
}

bool plain_device(const std::string& device) {
  if (device == "cpu" || device == "cuda") return true;
  if (!device.starts_with("cuda:") || device.size() == 5 || device.size() > 8) return false;
  return std::all_of(device.begin() + 5, device.end(), [](unsigned char c) { return std::isdigit(c); });
}

std::string in_quotes(const std::string& text) {
  return Json(text).dump(-1, ' ', true, Json::error_handler_t::replace);
}

std::vector<std::string_view> role_names(const Vocabulary& words) {
  std::vector<std::string_view> names;
  for (const RoleKind& role : words.roles) names.push_back(role.name);
  return names;
}

const RoleKind* find_role(const Vocabulary& words, const std::string& name) {
  const auto found = std::ranges::find(words.roles, name, &RoleKind::name);
  return found == words.roles.end() ? nullptr : &*found;
}

void check_role(NodeSection& node, const JsonPath& at, const Vocabulary& words, TopologyFaults& faults) {
  const bool named = !node.role.empty();
  node.role = role_of(node);
  const RoleKind* role = find_role(words, node.role);
  if (!role) {
    const auto names = role_names(words);
    const std::string_view near = nearest(node.role, names);
    std::string all;
    for (std::string_view name : names) all += (all.empty() ? "" : ", ") + std::string(name);
    faults.add(at.key(named ? "role" : "name"),
               "unknown role " + in_quotes(node.role) + "; known roles: " + all +
                   (near.empty() ? "" : "; did you mean '" + std::string(near) + "'?"));
    return;
  }
  if (node.external) return;  // its settings are its own
  try {
    node.config = role->check(node.config, at.key("config"));
  } catch (const ConfigErrors& errors) {
    faults.lines.insert(faults.lines.end(), errors.errors().begin(), errors.errors().end());
  } catch (const std::invalid_argument& error) {
    faults.lines.push_back(error.what());
  }
}

bool plain_port(const std::string& text) {
  if (text.empty() || text.size() > 5 || text.find_first_not_of("0123456789") != text.npos) return false;
  return std::stoi(text) > 0 && std::stoi(text) <= 65535;
}

void check_external(const NodeSection& node, const JsonPath& at, TopologyFaults& faults) {
  if (node.endpoint.empty()) return;
  if (!node.external)
    faults.add(at.key("endpoint"), "only an external node has an endpoint of its own; expected \"external\": true");
  if (!node.endpoint.starts_with("ipc:///") && !node.endpoint.starts_with("tcp://"))
    faults.add(at.key("endpoint"),
               "expected \"ipc:///PATH\" or \"tcp://HOST:PORT\", found " + in_quotes(node.endpoint));
  if (node.count != 1) faults.add(at.key("count"), "a node with an endpoint is one process; expected 1");
}

// "10.0.0.2" or "10.0.0.2:5555", "::1" or "[::1]:5555".
bool plain_address(const std::string& text, bool& has_port) {
  std::string host = text;
  has_port = text.starts_with('[') || std::count(text.begin(), text.end(), ':') == 1;
  if (has_port) {
    const std::size_t colon = text.rfind(':');
    if (!plain_port(text.substr(colon + 1))) return false;
    host = text.substr(0, colon);
    if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  }
  in6_addr address;
  return inet_pton(AF_INET, host.c_str(), &address) == 1 || inet_pton(AF_INET6, host.c_str(), &address) == 1;
}

void check_place(const NodeSection& node, ControlTransport control, const JsonPath& at, TopologyFaults& faults) {
  if (node.bind.empty() && node.advertise.empty()) return;
  bool has_port = false;
  if (!node.bind.empty() && !plain_address(node.bind, has_port))
    faults.add(at.key("bind"), "expected an IP address, or ADDRESS:PORT, found " + in_quotes(node.bind));
  const std::size_t colon = node.advertise.rfind(':');
  if (!node.advertise.empty() &&
      (colon == node.advertise.npos || colon == 0 || !plain_port(node.advertise.substr(colon + 1))))
    faults.add(at.key("advertise"), "expected HOST:PORT, found " + in_quotes(node.advertise));
  if (control != ControlTransport::kTcp)
    faults.add(at.key(node.bind.empty() ? "advertise" : "bind"), "needs \"transport\": {\"control\": \"tcp\"}");
  if (node.count != 1 && (has_port || !node.advertise.empty()))
    faults.add(at.key("count"), "a node with a port of its own is one process; expected 1");
}

void check_launch(const NodeSection& node, const JsonPath& at, TopologyFaults& faults) {
  if (node.launch.empty() || node.external) return;
  const std::string program = program_named(node.launch[0]);
  std::error_code none;
  if (!std::filesystem::is_regular_file(program, none) || access(program.c_str(), X_OK) != 0)
    faults.add(at.key("launch").index(0),
               "no program " + in_quotes(node.launch[0]) + "; expected one in PATH, or a path");
}

// As resolve_model of core/io/model_folder.hpp will find it.
void check_model(const std::filesystem::path& model, const JsonPath& at, TopologyFaults& faults) {
  namespace fs = std::filesystem;
  std::error_code none;
  if (!fs::is_directory(model, none)) {
    if (!fs::is_regular_file(model, none) || model.extension() != ".gguf")
      faults.add(at, "no model at " + model.string() + "; expected a Hugging Face folder or a GGUF file");
    return;
  }
  if (fs::is_regular_file(model / "config.json", none)) return;
  const auto found = std::ranges::count_if(fs::directory_iterator(model, none), [](const fs::directory_entry& entry) {
    return entry.path().extension() == ".gguf";
  });
  if (found != 1)
    faults.add(at, model.string() + " holds no config.json, and " + std::to_string(found) +
                       " .gguf files; expected a Hugging Face folder, a GGUF file or a folder with one");
}

// The names that the parts of a score have; none where the reward is somebody else's.
std::vector<std::string> rule_names(const NodeSection& reward) {
  std::vector<std::string> names;
  if (reward.external || !reward.config.is_object() || !reward.config.contains("rules")) return names;
  for (const Json& rule : reward.config["rules"])
    for (const char* key : {"name", "type"})
      if (rule.is_object() && rule.contains(key) && rule[key].is_string()) {
        names.push_back(rule[key]);
        break;
      }
  return names;
}

void check_rule_name(const std::string& name, const std::vector<std::string>& rules, const JsonPath& at,
                     TopologyFaults& faults) {
  if (rules.empty() || std::ranges::find(rules, name) != rules.end()) return;
  std::string all;
  for (const std::string& rule : rules) all += (all.empty() ? "" : ", ") + rule;
  faults.add(at, "no rule of the reward is named " + in_quotes(name) + "; expected one of " + all);
}

// Who names a rule of the reward's, and rules that do not fit the length of an answer.
void check_rules(const Topology& topology, std::size_t reward, TopologyFaults& faults) {
  const JsonPath nodes = faults.where.key("nodes");
  const std::vector<std::string> names = rule_names(topology.nodes[reward]);
  for (std::size_t i = 0; i < topology.nodes.size(); ++i) {
    const Json::json_pointer rule("/evaluation/rule");
    const Json& config = topology.nodes[i].config;
    if (role_of(topology.nodes[i]) != "conductor" || !config.contains(rule) || !config[rule].is_string()) continue;
    if (const std::string name = config[rule]; !name.empty())
      check_rule_name(name, names, nodes.index(i).key("config").key("evaluation").key("rule"), faults);
  }
  const Json::json_pointer parts("/advantage/part_weights");
  if (topology.algorithm.contains(parts))
    for (const auto& part : topology.algorithm[parts].items())
      check_rule_name(part.key(), names,
                      faults.where.key("algorithm").key("advantage").key("part_weights").key(part.key()), faults);
  if (names.empty()) return;
  const Json& rules = topology.nodes[reward].config["rules"];
  for (std::size_t i = 0; i < rules.size(); ++i) {
    const Json& rule = rules[i];
    if (!rule.is_object() || rule.value("type", Json()) != "overlong" || rule.value("max_tokens", Json(0)) != 0)
      continue;
    const Json buffer = rule.value("buffer_tokens", Json());
    if (buffer.is_number() && buffer > topology.sampling.max_new_tokens)
      faults.add(
          nodes.index(reward).key("config").key("rules").index(i).key("buffer_tokens"),
          "expected at most sampling.max_new_tokens, which is " + std::to_string(topology.sampling.max_new_tokens));
  }
}

// The longest prompt and the longest answer fit the model together.
void check_lengths(const Topology& topology, const Vocabulary& words, TopologyFaults& faults) {
  const int64_t positions = words.max_positions ? words.max_positions(*topology.model) : 0;
  const int64_t prompt = topology.prompts.max_prompt_tokens, answer = topology.sampling.max_new_tokens;
  if (positions > 0 && answer > positions - prompt)
    faults.add(faults.where.key("sampling").key("max_new_tokens"),
               std::to_string(answer) + " and prompts.max_prompt_tokens, " + std::to_string(prompt) +
                   ", are more than the model's " + std::to_string(positions) + " positions");
}

}  // namespace

void check_run(const RunSection& run, TopologyFaults& faults) {
  const JsonPath at = faults.where.key("run");
  if (!run.name.empty() && !plain_name(run.name, 64, true))
    faults.add(at.key("name"),
               "expected letters, digits, '.', '-', '_' (at most 64, no '..'), found " + in_quotes(run.name));
  if (run.folder.empty()) faults.add(at.key("folder"), "expected a folder");
}

void check_sampling(const Sampling& s, TopologyFaults& faults) {
  const JsonPath at = faults.where.key("sampling");
  // Greedy answers have no spread within a group: nothing to learn from, and log-probabilities of logits / 0.
  if (!(s.temperature >= 0.001 && s.temperature <= 1000))
    faults.add(at.key("temperature"), "expected a number above 0: 0.001 to 1000");
  if (s.top_k < 0) faults.add(at.key("top_k"), "expected 0 (off) or more");
  if (!(s.top_p > 0 && s.top_p <= 1)) faults.add(at.key("top_p"), "expected a number above 0, at most 1 (off)");
  if (!(s.min_p >= 0 && s.min_p < 1)) faults.add(at.key("min_p"), "expected 0 (off) or a number below 1");
  if (!(s.repetition_penalty > 0)) faults.add(at.key("repetition_penalty"), "expected a number above 0");
  if (s.max_new_tokens < 1 || s.max_new_tokens > 1'000'000)
    faults.add(at.key("max_new_tokens"), "expected 1 to 1000000");
  for (std::size_t i = 0; i < s.stop.size(); ++i)
    if (s.stop[i].empty()) faults.add(at.key("stop").index(i), "expected a text that is not empty");
}

void check_transport(const Topology& topology, TopologyFaults& faults) {
  const JsonPath at = faults.where.key("transport");
  in6_addr address;
  const char* bind = topology.transport.bind.c_str();
  if (inet_pton(AF_INET, bind, &address) != 1 && inet_pton(AF_INET6, bind, &address) != 1)
    faults.add(at.key("bind"), "expected an IP address, found " + in_quotes(topology.transport.bind));
  if (!(topology.transport.ask_timeout_s >= 1 && topology.transport.ask_timeout_s <= 86400))
    faults.add(at.key("ask_timeout_s"), "expected 1 to 86400 seconds");
  const JsonPath restarts = faults.where.key("restarts");
  if (topology.restarts.limit < 0 || topology.restarts.limit > 1000)
    faults.add(restarts.key("limit"), "expected 0 to 1000");
  if (!(topology.restarts.window_s > 0 && topology.restarts.window_s <= 86400))
    faults.add(restarts.key("window_s"), "expected a number above 0, at most 86400 seconds");
  if (!(topology.restarts.lease_s >= 1 && topology.restarts.lease_s <= 86400))
    faults.add(restarts.key("lease_s"), "expected 1 to 86400 seconds");
  if (!(topology.restarts.load_lease_s >= 1 && topology.restarts.load_lease_s <= 86400))
    faults.add(restarts.key("load_lease_s"), "expected 1 to 86400 seconds");
  if (topology.prompts.max_prompt_tokens < 1)
    faults.add(faults.where.key("prompts").key("max_prompt_tokens"), "expected 1 or more");
}

void check_nodes(Topology& topology, const Vocabulary& words, TopologyFaults& faults) {
  std::vector<NodeSection>& nodes = topology.nodes;
  std::map<std::string, std::size_t> first;
  int64_t instances = 0;
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    NodeSection& node = nodes[i];
    const JsonPath at = faults.where.key("nodes").index(i);
    if (node.name->empty()) continue;  // already reported by the reader, or below
    if (!plain_name(*node.name, 32, false))
      faults.add(at.key("name"),
                 "expected small letters, digits, '-', '_' (at most 32), found " + in_quotes(*node.name));
    else if (const auto [it, fresh] = first.emplace(*node.name, i); !fresh)
      faults.add(at.key("name"),
                 "nodes[" + std::to_string(it->second) + "] is named " + in_quotes(*node.name) + " already");
    if (node.count < 1 || node.count > kMaxInstances)
      faults.add(at.key("count"), "expected 1 to " + std::to_string(kMaxInstances));
    else
      instances += node.count;
    if (node.threads < 0 || node.threads > 4096) faults.add(at.key("threads"), "expected 0 (planned) to 4096");
    if (!plain_device(node.device))
      faults.add(at.key("device"), "expected \"cpu\", \"cuda\" or \"cuda:N\", found " + in_quotes(node.device));
    else if (node.device != "cpu" && !words.cuda)
      faults.add(at.key("device"), "this build of troupe has no CUDA; expected \"cpu\"");
    check_launch(node, at, faults);
    check_external(node, at, faults);
    check_place(node, topology.transport.control, at, faults);
    check_role(node, at, words, faults);
  }
  if (instances > kMaxInstances)
    faults.add(faults.where.key("nodes"), "expected at most " + std::to_string(kMaxInstances) + " processes in all");
}

void check_cast(const Topology& topology, bool needs_reference, const Vocabulary& words, TopologyFaults& faults) {
  const JsonPath nodes = faults.where.key("nodes");
  for (const std::string role : {"conductor", "actor", "learner", "reference", "reward"}) {
    std::vector<std::size_t> players;
    for (std::size_t i = 0; i < topology.nodes.size(); ++i)
      if (role_of(topology.nodes[i]) == role) players.push_back(i);
    const bool wanted = role != "reference" || needs_reference;
    if (players.empty() && wanted && find_role(words, role))
      faults.add(nodes, "no node plays \"" + role + "\"" + (role == "reference" ? ", which the algorithm needs" : ""));
    if (role == "actor" || players.empty()) continue;
    if (role == "reward") check_rules(topology, players[0], faults);
    if (players.size() > 1)
      faults.add(nodes.index(players[1]), "nodes[" + std::to_string(players[0]) + "] plays \"" + role +
                                              "\" already; expected one node of this role");
    if (role == "conductor" && topology.nodes[players[0]].count != 1)
      faults.add(nodes.index(players[0]).key("count"), "a run has one conductor; expected 1");
    if (role == "conductor" && !nodes_take_turns(topology) && instances_of_role(topology, "learner").size() > 1)
      faults.add(nodes.index(players[0]).key("config").key("max_staleness"),
                 "several learners train synchronous runs so far; expected 0");
    if (role == "learner" && topology.nodes[players[0]].count > 1 && topology.nodes[players[0]].device != "cpu")
      faults.add(nodes.index(players[0]).key("device"), "several learners train on the cpu so far; expected \"cpu\"");
    if (topology.nodes[players[0]].external && role != "reward")
      faults.add(nodes.index(players[0]).key("external"), "only a reward may be external so far");
  }
  check_lengths(topology, words, faults);
}

void check_files(Topology& topology, const std::filesystem::path& folder, TopologyFaults& faults) {
  namespace fs = std::filesystem;
  const auto absolute = [&](std::string& path) { path = (folder / path).lexically_normal().string(); };
  std::error_code none;
  if (!topology.model->empty()) {
    absolute(topology.model.value);
    check_model(*topology.model, faults.where.key("model"), faults);
  } else if (const std::string at = faults.where.key("model").prefix();
             std::ranges::none_of(faults.lines, [&](const std::string& line) { return line.starts_with(at); })) {
    faults.add(faults.where.key("model"), "expected a Hugging Face folder or a GGUF file, found \"\"");
  }
  for (std::size_t i = 0; i < topology.nodes.size(); ++i) {
    Json& config = topology.nodes[i].config;
    if (topology.nodes[i].external || !config.is_object() || !config.contains("model")) continue;
    if (!config["model"].is_string() || config["model"] == "") continue;
    std::string model = config["model"];
    absolute(model);
    config["model"] = model;
    check_model(model, faults.where.key("nodes").index(i).key("config").key("model"), faults);
  }
  const JsonPath prompts = faults.where.key("prompts");
  for (const auto& [key, path] : {std::pair<const char*, std::string*>{"file", &topology.prompts.file.value},
                                  std::pair<const char*, std::string*>{"held_out", &topology.prompts.held_out}}) {
    if (path->empty()) continue;
    absolute(*path);
    if (!fs::is_regular_file(*path, none)) {
      faults.add(prompts.key(key), "no file at " + *path + "; expected JSON lines with \"prompt\" and \"answer\"");
      continue;
    }
    try {  // a malformed line is told before anything starts
      read_prompts(*path);
    } catch (const std::runtime_error& error) {
      faults.add(prompts.key(key), error.what());
    }
  }
  if (!topology.run.folder.empty()) absolute(topology.run.folder);
}

}  // namespace troupe
