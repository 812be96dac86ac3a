#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iostream>

#include "actors/fault_hooks.hpp"
#include "core/config.hpp"
#include "launcher/chaos.hpp"
#include "launcher/commands.hpp"

namespace troupe {
namespace {

constexpr const char* kAbout =
    "Troupe trains language models with reinforcement learning from feedback: a conductor, actors, a learner,\n"
    "a reference and a reward model, each a process of its own, described by one topology file.";

constexpr const char* kFooter =
    "Examples:\n"
    "  troupe topology check configs/grpo-smollm2-local.json\n"
    "  troupe run configs/grpo-smollm2-local.json --set run.seed=7\n"
    "  troupe status runs/RUN\n"
    "  troupe resume runs/RUN\n"
    "  troupe generate --model runs/RUN/export --chat --prompt \"What is 3 + 4?\"\n"
    "  troupe chat --load-from runs/RUN/export\n"
    "  troupe eval --mode choice --load-from runs/RUN/export --data ceval\n"
    "\n"
    "Exit status: 0 done or stopped cleanly, 1 error, 2 wrong usage, 130 ended by force.\n"
    "troupe COMMAND --help explains a command.";

void print_errors(const ConfigErrors& errors) {
  for (const std::string& line : errors.errors()) std::fprintf(stderr, "troupe: %s\n", line.c_str());
  if (errors.errors().size() > 1) std::fprintf(stderr, "troupe: %zu faults\n", errors.errors().size());
}

// Flags are written with hyphens here and with underscores in MiniMind's scripts: --load_from is --load-from. Values
// stay as they are.
std::vector<std::string> with_hyphens(int argc, char** argv) {
  std::vector<std::string> words(argv, argv + argc);
  for (std::string& word : words) {
    if (word == "--") break;
    if (word.starts_with("--"))
      std::replace(word.begin(), word.begin() + static_cast<std::ptrdiff_t>(std::min(word.find('='), word.size())), '_',
                   '-');
  }
  return words;
}

// CLI11 says of an unknown command that one is required.
std::string fault_of(const CLI::App& app, const CLI::ParseError& error) {
  const std::vector<std::string> words = app.remaining();
  if (app.get_require_subcommand_min() == 0 || words.empty() || words[0].starts_with('-')) return error.what();
  std::vector<std::string_view> known;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App* one) { return !one->get_group().empty(); }))
    known.push_back(command->get_name());
  const std::string_view near = nearest(words[0], known);
  return "unknown command '" + words[0] + "'" + (near.empty() ? "" : "; did you mean '" + std::string(near) + "'?");
}

int parse(CLI::App& app, int argc, char** argv) {
  const std::vector<std::string> words = with_hyphens(argc, argv);
  std::vector<const char*> arguments;
  for (const std::string& word : words) arguments.push_back(word.c_str());
  try {
    app.parse(argc, arguments.data());
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) return app.exit(error);  // --help
    const CLI::App* deepest = &app;
    while (!deepest->get_subcommands().empty()) deepest = deepest->get_subcommands().front();
    std::fprintf(stderr, "troupe: %s\n", fault_of(*deepest, error).c_str());
    std::string path = deepest == &app ? "" : " " + deepest->get_name();
    for (const CLI::App* up = deepest->get_parent(); up && up != &app; up = up->get_parent())
      path = " " + up->get_name() + path;
    std::fprintf(stderr, "troupe: try: troupe%s --help\n", path.c_str());
    return 2;
  }
  return 0;
}

// 1 in place of 0 where standard output could not be written to its end. A pipe fails only where its reader has left
// (| head), which is no fault.
int with_output_written(int exit_code) {
  errno = 0;
  std::cout.flush();
  const bool written = std::fflush(stdout) == 0 && !std::ferror(stdout);
  const char* reason = errno == 0 ? "could not be written to its end" : std::strerror(errno);
  struct stat info;
  if (written || (fstat(STDOUT_FILENO, &info) == 0 && (S_ISFIFO(info.st_mode) || S_ISSOCK(info.st_mode))))
    return exit_code;
  std::fprintf(stderr, "troupe: standard output: %s\n", reason);
  return exit_code == 0 ? 1 : exit_code;
}

}  // namespace

int command_line(int argc, char** argv, const RoleCalls& calls, const Vocabulary& words) {
  int exit_code = 0;
  CLI::App app(kAbout, "troupe");
  app.footer(kFooter);
  app.set_version_flag("--version", "troupe " TROUPE_VERSION);
  app.require_subcommand(1);
  add_run_commands(app, calls, words, exit_code);
  add_watch_commands(app, exit_code);
  add_topology_commands(app, words, exit_code);
  add_model_commands(app, calls, exit_code);
  add_chat_commands(app, calls, exit_code);
  add_data_commands(app, calls, exit_code);
  add_job_commands(app, calls, exit_code);
  add_journal_commands(app, calls, words, exit_code);
  add_chaos_command(app, words, exit_code);
  add_tokenizer_commands(app, exit_code);
  add_role_command(app, calls, exit_code);
  try {
    ask_for_faults_of_environment();
    if (const int wrong = parse(app, argc, argv); wrong != 0) return wrong;
    // A role's output is its log: that it has gaps says nothing of how the role ended.
    return app.got_subcommand("role") ? exit_code : with_output_written(exit_code);
  } catch (const ConfigErrors& errors) {
    print_errors(errors);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "troupe: %s\n", error.what());
  }
  return 1;
}

}  // namespace troupe
