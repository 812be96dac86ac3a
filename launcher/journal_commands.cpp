#include <CLI/CLI.hpp>
#include <memory>

#include "launcher/commands.hpp"
#include "launcher/run_folder.hpp"
#include "launcher/topology.hpp"

namespace troupe {
namespace {

void add_journal(CLI::App& app, const RoleCalls& calls, int& exit_code) {
  const auto choice = std::make_shared<JournalChoice>();
  CLI::App* command = app.add_subcommand("journal", "read, verify and export what a run was trained on");
  command->add_option("RUN", choice->run, "the run's folder")->required();
  CLI::Option* to = command->add_option("--export", choice->export_to, "write one JSON line per sample to this file")
                        ->type_name("FILE.jsonl");
  command->add_flag("--tokens", choice->tokens, "with token ids, log-probabilities and masks in the export")->needs(to);
  command->add_flag("--check", choice->check,
                    "audit the whole run: every sample in exactly one step, no step lost or doubled, checkpoints and "
                    "metrics of the same course");
  command->footer(
      "Every record's checksum, the order of steps and the checkpoints' offsets are always verified; what is wrong is\n"
      "named with segment and offset, and the exit status is 1. A torn tail is no damage: a power cut leaves one.\n"
      "Examples:\n"
      "  troupe journal runs/RUN\n"
      "  troupe journal runs/RUN --check\n"
      "  troupe journal runs/RUN --export samples.jsonl --tokens");
  command->callback([choice, calls, &exit_code] {
    require_run(choice->run);
    exit_code = calls.journal(*choice);
  });
}

// What a replay can change: the rest of a topology has no part in a step that is already rolled.
void check_changes(const std::vector<std::string>& sets) {
  for (const std::string& set : sets)
    if (!set.starts_with("algorithm.") && !set.starts_with("nodes.learner.") && !set.starts_with("nodes.reward."))
      throw std::invalid_argument("--set " + set +
                                  ": a replay changes algorithm.*, nodes.learner.* and nodes.reward.* alone");
}

void add_replay(CLI::App& app, const RoleCalls& calls, const Vocabulary& words, int& exit_code) {
  struct Arguments {
    ReplayChoice choice;
    std::vector<std::string> sets;
  };
  const auto arguments = std::make_shared<Arguments>();
  ReplayChoice& choice = arguments->choice;
  CLI::App* command = app.add_subcommand("replay", "train on journalled steps again and compare every bit");
  command->add_option("RUN", choice.run, "the run's folder")->required();
  command->add_option("--step", choice.from, "the step")->required()->check(CLI::Range(1, 1'000'000'000));
  command->add_option("--to-step", choice.to, "the last step, when there are several")
      ->check(CLI::Range(1, 1'000'000'000));
  command
      ->add_option("--set", arguments->sets, "what if: another value of algorithm.*, nodes.learner.*, nodes.reward.*")
      ->type_name("PATH=VALUE")
      ->allow_extra_args(false);
  command->add_option("--reward", choice.reward, "what if: other reward rules, a file {\"rules\": [...]}")
      ->type_name("FILE.json");
  command->add_option(
      "--export", choice.export_to,
      "write the policy after the last step as a Hugging Face folder; a model that is there is replaced");
  command->footer(
      "The learner alone, without the other roles: it loads the newest checkpoint before the step (or the base model)\n"
      "and is fed the journal. Loss and weights must come out as metrics.jsonl and the checkpoints have them, bit for\n"
      "bit: exit status 1 and a line for everything that differs otherwise. With --set or --reward it shows what "
      "would\n"
      "have been: answers scored anew, advantages anew, both columns of metrics.\n"
      "Examples:\n"
      "  troupe replay runs/RUN --step 12\n"
      "  troupe replay runs/RUN --step 12 --to-step 20 --set algorithm.clip_high=0.28\n"
      "  troupe replay runs/RUN --step 12 --reward stricter.json --export what-if");
  command->callback([arguments, calls, &words, &exit_code] {
    ReplayChoice replay = arguments->choice;
    require_run(replay.run);
    for (std::filesystem::path* path :
         {&replay.run, replay.reward ? &*replay.reward : nullptr, replay.export_to ? &*replay.export_to : nullptr})
      if (path) *path = std::filesystem::absolute(*path).lexically_normal();
    if (replay.to == 0) replay.to = replay.from;
    if (replay.to < replay.from) throw std::invalid_argument("--to-step is before --step");
    check_changes(arguments->sets);
    if (!arguments->sets.empty())
      replay.changed = load_topology(replay.run / "topology.json", {arguments->sets, {}, 0}, words);
    // As a role's process: relative paths in its settings mean the folder in which the run was started.
    std::filesystem::current_path(read_run_file(replay.run).cwd);
    exit_code = calls.replay(replay);
  });
}

}  // namespace

void add_journal_commands(CLI::App& app, const RoleCalls& calls, const Vocabulary& words, int& exit_code) {
  add_journal(app, calls, exit_code);
  add_replay(app, calls, words, exit_code);
}

}  // namespace troupe
