#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/io/disk.hpp"
#include "core/metrics/metrics_log.hpp"
#include "core/metrics/summary.hpp"
#include "launcher/commands.hpp"
#include "launcher/play.hpp"
#include "launcher/run_folder.hpp"
#include "launcher/run_view.hpp"
#include "launcher/spawn.hpp"
#include "launcher/thread_plan.hpp"
#include "launcher/topology.hpp"

namespace troupe {
namespace {

struct RunArguments {
  std::string what;  // topology file, or run folder
  std::vector<std::string> overrides;
  std::optional<std::string> run_folder;
  bool plain = false;
};

void add_common(CLI::App& command, const std::shared_ptr<RunArguments>& arguments) {
  command
      .add_option("--set", arguments->overrides,
                  "override a value of the topology (may be repeated): run.seed=7, nodes.actor.count=2")
      ->type_name("PATH=VALUE")
      ->allow_extra_args(false);
  command.add_flag("--plain", arguments->plain, "a line per step instead of the live display");
}

// True, after saying where its result is, when the run has played all its steps.
bool tell_if_done(const Topology& topology, const std::filesystem::path& folder) {
  if (!std::filesystem::exists(folder / "run.json") || read_run_file(folder).state != "done") return false;
  const nlohmann::json summary = read_summary(folder);
  const auto steps = summary.value("steps", uint64_t{0});
  if (steps < planned_steps(topology)) return false;
  const std::string result = summary.value("export", "");
  std::printf("run %s is done, after %llu steps; nothing was changed\n", folder.filename().c_str(),
              static_cast<unsigned long long>(steps));
  std::printf("  its model: %s\n",
              result.empty() ? ("troupe export " + folder.string() + " --to FOLDER").c_str() : result.c_str());
  std::printf("  its report: %s\n", (folder / "report.html").c_str());
  std::printf("  more steps: troupe resume %s --set nodes.conductor.config.steps=N\n", folder.c_str());
  return true;
}

// `now` holds what `before` held: it may have moved, with a run that goes on elsewhere.
bool moved(const std::filesystem::path& before, const std::filesystem::path& now) {
  namespace fs = std::filesystem;
  if (!fs::exists(before) || fs::equivalent(before, now)) return true;
  return fs::is_regular_file(before) && fs::is_regular_file(now) && fs::file_size(before) == fs::file_size(now) &&
         read_file(real_disk(), before, UINT64_MAX) == read_file(real_disk(), now, UINT64_MAX);
}

// What is journalled was made with these: another value would use samples twice, or fit no checkpoint. The rest of a
// topology may change: it holds from the first step on that is trained after the last checkpoint.
void check_same_run(const Topology& before, const Topology& now, const std::filesystem::path& folder) {
  const std::filesystem::path metrics = folder / "metrics.jsonl";
  const std::vector<StepMetrics> told =
      std::filesystem::exists(metrics) ? read_metrics(metrics) : std::vector<StepMetrics>();
  if (told.empty()) return;
  std::string changed;
  const auto compare = [&](const std::string& path, const Json& old, const Json& given) {
    if (old != given)
      changed += (changed.empty() ? "" : ", ") + path + " (" + old.dump() + ", given " + given.dump() + ")";
  };
  compare("run.seed", before.run.seed, now.run.seed);
  if (!moved(*before.model, *now.model)) compare("model", *before.model, *now.model);
  if (!moved(*before.prompts.file, *now.prompts.file)) compare("prompts.file", *before.prompts.file, *now.prompts.file);
  const Json prompts(to_json(before.prompts)), given(to_json(now.prompts));
  for (const char* key : {"max_prompt_tokens", "system"})
    compare(std::string("prompts.") + key, prompts.at(key), given.at(key));
  for (const NodeSection& node : before.nodes) {
    const auto same = std::ranges::find(now.nodes, *node.name, [](const NodeSection& other) { return *other.name; });
    if (same == now.nodes.end()) continue;
    for (const char* key : {"group_size", "prompts_per_update", "lora"})
      if (node.config.contains(key) && same->config.contains(key))
        compare("nodes." + *node.name + ".config." + key, node.config[key], same->config[key]);
  }
  if (!changed.empty())
    throw std::invalid_argument(folder.string() + " has begun with another " + changed +
                                "; expected what it has, or a new run");
  if (planned_steps(now) < told.back().step)
    throw std::invalid_argument("nodes.conductor.config.steps: " + std::to_string(planned_steps(now)) +
                                ", but the run has ended " + std::to_string(told.back().step) + " steps");
}

// Before the topology is checked, which reads models and prompts: this may start the process anew.
void wait_as_suits(const std::filesystem::path& topology, const std::vector<std::string>& overrides) {
  limit_spinning(nodes_take_turns(read_unchecked(topology, overrides)) ? Spin::kInTurn : Spin::kNone);
}

}  // namespace

void add_run_commands(CLI::App& app, const RoleCalls& calls, const Vocabulary& words, int& exit_code) {
  const auto arguments = std::make_shared<RunArguments>();
  CLI::App* run = app.add_subcommand("run", "start a run from a topology file and watch it to its end");
  run->add_option("TOPOLOGY", arguments->what, "the topology file (docs/topology.md)")->required();
  run->add_option("--run-folder", arguments->run_folder, "where everything is written; default: run.folder/run.name");
  add_common(*run, arguments);
  run->footer(
      "Examples:\n"
      "  troupe run configs/grpo-smollm2-local.json\n"
      "  troupe run configs/grpo-smollm2-local.json --set run.seed=7 --set nodes.learner.config.lr=2e-6\n"
      "Ctrl-C stops cleanly with a checkpoint (exit status 0; troupe resume goes on); a second one stops at once "
      "(130).");
  run->callback([arguments, calls, &words, &exit_code] {
    wait_as_suits(arguments->what, arguments->overrides);
    const Topology topology = load_topology(arguments->what, {arguments->overrides, {}, 0}, words);
    exit_code = play(topology, make_run_folder(topology, arguments->run_folder), arguments->plain, calls, words);
  });

  CLI::App* resume = app.add_subcommand("resume", "go on with a run that was stopped or has failed");
  resume->add_option("RUN", arguments->what, "the run's folder")->required();
  add_common(*resume, arguments);
  resume->footer(
      "Goes on from the last checkpoint and the journalled steps since; nothing is trained on twice. A run that is "
      "done\n"
      "stays as it is, unless it is given more steps. Seed, model, prompts, group_size, prompts_per_update and lora "
      "are "
      "the run's;\n"
      "the rest of its topology may be changed.\n"
      "Examples:\n"
      "  troupe resume runs/RUN\n"
      "  troupe resume runs/RUN --set nodes.conductor.config.steps=200");
  resume->callback([arguments, calls, &words, &exit_code] {
    const std::filesystem::path folder = std::filesystem::absolute(arguments->what).lexically_normal();
    require_run(folder);
    wait_as_suits(folder / "topology.json", arguments->overrides);
    const Topology topology = load_topology(folder / "topology.json", {arguments->overrides, {}, 0}, words);
    if (tell_if_done(topology, folder)) return;
    if (!arguments->overrides.empty()) check_same_run(read_run_topology(folder), topology, folder);
    exit_code = play(topology, folder, arguments->plain, calls, words);
  });
}

}  // namespace troupe
