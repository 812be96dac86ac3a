#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "launcher/commands.hpp"
#include "launcher/topology.hpp"

namespace troupe {
namespace {

struct TopologyArguments {
  std::string file;
  std::vector<std::string> overrides;
};

CLI::App* add_verb(CLI::App& parent, const char* name, const char* about, const char* example,
                   const std::shared_ptr<TopologyArguments>& arguments) {
  CLI::App* verb = parent.add_subcommand(name, about);
  verb->add_option("FILE", arguments->file, "the topology file")->required();
  verb->add_option("--set", arguments->overrides, "PATH=VALUE: override a value, also in a node by its name")
      ->type_name("PATH=VALUE")
      ->allow_extra_args(false);
  verb->footer(example);
  return verb;
}

}  // namespace

void add_topology_commands(CLI::App& app, const Vocabulary& words, int& exit_code) {
  CLI::App* topology = app.add_subcommand("topology", "check or show a topology file; nothing is started");
  topology->require_subcommand(1);
  topology->footer("docs/topology.md explains every key.");
  const auto arguments = std::make_shared<TopologyArguments>();

  add_verb(*topology, "check", "report every fault of a topology file, with path and line",
           "Example:\n  troupe topology check my.json --set nodes.actor.count=4", arguments)
      ->callback([arguments, &words, &exit_code] {
        const Topology loaded = load_topology(arguments->file, {arguments->overrides, {}, 0}, words);
        std::printf("%s: good\n%s", arguments->file.c_str(), describe(loaded, words).c_str());
        exit_code = 0;
      });
  add_verb(*topology, "show", "print a topology with every default filled in",
           "Example:\n  troupe topology show configs/grpo-smollm2-local.json", arguments)
      ->callback([arguments, &words, &exit_code] {
        const Topology loaded = load_topology(arguments->file, {arguments->overrides, {}, 0}, words);
        std::printf("%s\n", to_json(loaded).dump(2).c_str());
        exit_code = 0;
      });
}

}  // namespace troupe
