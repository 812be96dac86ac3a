// troupe: one binary, its subcommands, and (as `troupe role`, started by the launcher) every role.
#include "launcher/commands.hpp"
#include "launcher/topology.hpp"

int main(int argc, char** argv) {
  const troupe::RoleCalls calls{troupe::run_role,       troupe::run_standalone,  troupe::generate_command,
                                troupe::export_command, troupe::make_tiny_model, troupe::chat_command,
                                troupe::eval_command,   troupe::convert_command};
  return troupe::command_line(argc, argv, calls, troupe::vocabulary());
}
