#include "launcher/spawn.hpp"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>

namespace troupe {
namespace {

Millis millis(double seconds) {
  return Millis(static_cast<int64_t>(seconds * 1000));
}

}  // namespace

std::string program_named(const std::string& name) {
  if (name.find('/') != name.npos) return name;
  std::istringstream folders(std::getenv("PATH") ? std::getenv("PATH") : "/usr/local/bin:/usr/bin:/bin");
  for (std::string folder; std::getline(folders, folder, ':');)
    if (const std::string path = folder + "/" + name; access(path.c_str(), X_OK) == 0) return path;
  return name;
}

SupervisorOptions supervisor_options(const Topology& topology, const RunFile& run,
                                     const std::filesystem::path& run_folder, const std::string& program) {
  SupervisorOptions options;
  options.self = node_options(run, "supervisor", 1, run.epoch, false);
  options.restarts = {static_cast<int>(topology.restarts.limit), millis(topology.restarts.window_s)};
  for (const NodeSection& node : topology.nodes) {
    if (node.external) continue;
    for (const std::string& instance : instances_of(node)) {
      NodeProcess& child = options.nodes.emplace_back();
      child.node.name = instance;
      child.node.on_failure = node.on_failure;
      child.node.drives = role_of(node) == "conductor";
      child.node.leases.otherwise = millis(topology.restarts.lease_s);
      child.node.leases.by_phase["load"] = millis(topology.restarts.load_lease_s);
      // Of a node that may be on another host nobody can tell whether it idles or its link does.
      if (!node.launch.empty()) child.node.leases.by_phase.erase("idle");
      child.process.argv = node.launch;
      if (!node.launch.empty()) child.process.argv[0] = program_named(node.launch[0]);
      // Behind another command /proc/self would be that one's.
      const std::string role_program =
          node.launch.empty() ? program : std::filesystem::read_symlink("/proc/self/exe").string();
      child.process.argv.insert(child.process.argv.end(),
                                {role_program, "role", "--run", run_folder.string(), "--node", instance});
      child.process.env = thread_environment(static_cast<int>(node.threads));
      child.process.log_path = (run_folder / "logs" / (file_name_of(instance) + ".log")).string();
    }
  }
  return options;
}

std::vector<std::string> own_arguments() {
  std::vector<std::string> out;
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  for (std::string argument; std::getline(file, argument, '\0');) out.push_back(argument);
  return out;
}

void limit_spinning(Spin spin) {
  if (std::getenv("OMP_WAIT_POLICY")) return;
  setenv("OMP_WAIT_POLICY", "passive", 1);
  setenv("GOMP_SPINCOUNT", std::to_string(static_cast<int>(spin)).c_str(), 1);
  std::vector<std::string> arguments = own_arguments();
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  std::fflush(nullptr);
  execv(kOwnProgram, argv.data());  // where it fails, slower is better than not at all
}

}  // namespace troupe
