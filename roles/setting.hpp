// What a role is made from: the run it belongs to and its own part of the topology.
#pragma once

#include <filesystem>
#include <string>

#include "roles/topology.hpp"

namespace troupe {

struct RoleSetting {
  Topology topology;
  std::filesystem::path run_folder;
  std::string instance;       // "actor/0"
  int threads = 1;            // planned for this role; the process or thread computes with no more
  std::string socket_folder;  // private folder for sockets of this run
  bool one_process = false;   // standalone: all roles are threads of this process

  const NodeSection& node() const { return node_of(topology, instance); }
  // The role's own "config" object and where it stands in the file, for messages.
  const Json& config() const { return node().config; }
  JsonPath where() const { return JsonPath((run_folder / "topology.json").string(), instance + ".config"); }
  // A role's own model setting, or the topology's.
  const std::string& model_or(const std::string& own) const { return own.empty() ? *topology.model : own; }
};

// The dtype a role computes in.
enum class ComputeDType { kF32, kBF16 };

template <>
struct EnumNames<ComputeDType> {
  static constexpr std::array kNames{std::pair<std::string_view, ComputeDType>{"f32", ComputeDType::kF32},
                                     std::pair<std::string_view, ComputeDType>{"bf16", ComputeDType::kBF16}};
};

}  // namespace troupe
