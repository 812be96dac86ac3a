#include <CLI/CLI.hpp>
#include <cstdlib>
#include <memory>
#include <stdexcept>

#include "launcher/commands.hpp"
#include "launcher/run_folder.hpp"

namespace troupe {
namespace {

// A count that the supervisor hands its child.
uint64_t from_supervisor(const char* variable) {
  const char* text = std::getenv(variable);
  char* end = nullptr;
  const uint64_t value = text ? std::strtoull(text, &end, 10) : 0;
  if (value == 0 || *end != '\0')
    throw std::runtime_error(std::string(variable) + " is not set: a role is started by troupe run, not by hand");
  return value;
}

}  // namespace

void add_role_command(CLI::App& app, const RoleCalls& calls, int& exit_code) {
  struct Arguments {
    std::string run, node;
  };
  const auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("role", "one role's process, as the launcher starts it");
  command->group("");  // hidden
  command->add_option("--run", arguments->run)->required();
  command->add_option("--node", arguments->node)->required();
  command->callback([arguments, calls, &exit_code] {
    require_run(arguments->run);
    const std::filesystem::path run = std::filesystem::absolute(arguments->run);
    // Relative paths in role configs mean the folder in which the run was first started, also after a resume elsewhere.
    std::filesystem::current_path(read_run_file(run).cwd);
    exit_code =
        calls.role(run, arguments->node, from_supervisor("TROUPE_INCARNATION"), from_supervisor("TROUPE_EPOCH"));
  });
}

}  // namespace troupe
