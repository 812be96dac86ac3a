// The command line of troupe: one add_* per group of subcommands, each in a file of its own. A subcommand's callback
// does the work and sets `exit_code`:
//   0 done, or stopped cleanly on request   1 error, one clear line   2 wrong usage   130 ended by force
#pragma once

#include "roles/jobs/run_job.hpp"
#include "roles/journal_command.hpp"
#include "roles/model_commands.hpp"
#include "roles/replay_command.hpp"
#include "roles/run_role.hpp"
#include "roles/tiny_model.hpp"

namespace CLI {
class App;
}

namespace troupe {

// The roles' entry points, handed in so that the command line can be tested without a model.
struct RoleCalls {
  decltype(&run_role) role = nullptr;
  decltype(&run_standalone) standalone = nullptr;
  decltype(&generate_command) generate = nullptr;
  decltype(&export_command) export_model = nullptr;
  decltype(&make_tiny_model) tiny_model = nullptr;
  decltype(&run_job) job = nullptr;
  decltype(&check_job) checked_job = nullptr;
  decltype(&job_name) name_of_job = nullptr;
  decltype(&chat_command) chat = nullptr;
  decltype(&eval_command) eval = nullptr;
  decltype(&convert_command) convert = nullptr;
  decltype(&journal_command) journal = nullptr;
  decltype(&replay_command) replay = nullptr;
};

struct Vocabulary;

void add_run_commands(CLI::App& app, const RoleCalls& calls, const Vocabulary& words, int& exit_code);  // run, resume
void add_watch_commands(CLI::App& app, int& exit_code);                              // status, stop, report
void add_topology_commands(CLI::App& app, const Vocabulary& words, int& exit_code);  // topology check, show
void add_model_commands(CLI::App& app, const RoleCalls& calls, int& exit_code);      // generate, export
void add_chat_commands(CLI::App& app, const RoleCalls& calls, int& exit_code);       // chat, eval, convert
void add_data_commands(CLI::App& app, const RoleCalls& calls, int& exit_code);       // data arithmetic, tiny-model
void add_job_commands(CLI::App& app, const RoleCalls& calls, int& exit_code);        // pretrain, sft, lora, dpo ...
void add_journal_commands(CLI::App& app, const RoleCalls& calls, const Vocabulary& words,
                          int& exit_code);                                     // journal, replay
void add_tokenizer_commands(CLI::App& app, int& exit_code);                    // tokenizer train
void add_role_command(CLI::App& app, const RoleCalls& calls, int& exit_code);  // role (hidden)

// Parses, runs, and prints what went wrong as "troupe: ..." lines on stderr.
int command_line(int argc, char** argv, const RoleCalls& calls, const Vocabulary& words);

}  // namespace troupe
