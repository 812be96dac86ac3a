// troupe: one binary, its subcommands, and (as `troupe role`, started by the launcher) every role.
#include <pthread.h>

#include "launcher/commands.hpp"
#include "launcher/topology.hpp"

int main(int argc, char** argv) {
  pthread_setname_np(pthread_self(), "troupe");  // it may have been started as /proc/self/exe
  const troupe::RoleCalls calls{.role = troupe::run_role,
                                .standalone = troupe::run_standalone,
                                .generate = troupe::generate_command,
                                .export_model = troupe::export_command,
                                .tiny_model = troupe::make_tiny_model,
                                .job = troupe::run_job,
                                .checked_job = troupe::check_job,
                                .name_of_job = troupe::job_name,
                                .chat = troupe::chat_command,
                                .eval = troupe::eval_command,
                                .convert = troupe::convert_command,
                                .journal = troupe::journal_command,
                                .replay = troupe::replay_command};
  return troupe::command_line(argc, argv, calls, troupe::vocabulary());
}
