// The command line with roles that pretend: they answer, beat and write metrics, and learn nothing.
#include <cstdio>
#include <thread>

#include "actors/handle.hpp"
#include "core/metrics/run_metrics.hpp"
#include "launcher/commands.hpp"
#include "launcher/play_job.hpp"
#include "roles/run_file.hpp"
#include "tests/launcher/pretend_cast.hpp"

namespace troupe {
namespace {

void conduct(Context& context, const std::filesystem::path& run_folder, const NodeSection& node) {
  const auto config = from_json<PretendConductor>(node.config, JsonPath("conductor"));
  uint64_t step = 0;
  if (std::filesystem::exists(run_folder / "metrics.jsonl")) {
    const auto done = read_metrics(run_folder / "metrics.jsonl");
    if (!done.empty()) step = done.back().step;
  }
  RunMetrics metrics(run_folder, step);
  while (step < static_cast<uint64_t>(*config.steps) && !context.stopping()) {
    context.beat("roll", "step " + std::to_string(step + 1));
    std::this_thread::sleep_for(Millis(config.step_ms));
    metrics.write(++step, {{"reward_mean", 0.5}, {"seconds_step", 0.001}});
  }
}

int pretend_role(const std::filesystem::path& run_folder, const std::string& name, uint64_t incarnation,
                 uint64_t epoch) {
  const Topology topology = read_run_topology(run_folder);
  const NodeSection& node = node_of(topology, name);
  if (role_of(node) == "actor" &&
      incarnation <= static_cast<uint64_t>(from_json<PretendActor>(node.config, JsonPath("actor")).deaths)) {
    std::fprintf(stderr, "%s: pretends to die\n", name.c_str());
    return 3;
  }
  const bool drives = role_of(node) == "conductor";
  SocketMailbox mailbox(node_options(read_run_file(run_folder), name, incarnation, epoch, drives));
  Context context(mailbox);
  if (drives) conduct(context, run_folder, node);
  while (!drives && !mailbox.stopping()) {
    mailbox.beat("idle");
    mailbox.next(std::chrono::steady_clock::now() + Millis(100));
  }
  return 0;
}

int pretend_standalone(const std::filesystem::path& run_folder, const StandaloneHooks& hooks) {
  RunMetrics metrics(run_folder, 0);
  metrics.write(1, {{"reward_mean", 1}});
  hooks.on_event("one process");
  hooks.on_status(RunStatus{"x", "running", {}, {}});
  const Topology topology = read_run_topology(run_folder);
  const NodeSection& conductor = node_of(topology, "conductor/0");
  std::this_thread::sleep_for(Millis(from_json<PretendConductor>(conductor.config, JsonPath("conductor")).step_ms));
  return 0;
}

int pretend_generate(const GenerateOptions& options) {
  std::printf("%s|%s|%g|%lld\n", options.model.c_str(), options.prompt.c_str(), options.sampling.temperature,
              static_cast<long long>(options.count));
  return 0;
}

int pretend_export(const std::filesystem::path& run_folder, std::optional<uint64_t> step,
                   const std::filesystem::path& to) {
  std::printf("%s|%lld|%s\n", run_folder.filename().c_str(), step ? static_cast<long long>(*step) : -1, to.c_str());
  return 0;
}

void print_model(const ModelChoice& m) {
  std::printf("%s|%s|%s|%s|%lld|%lld|%d|%d\n", m.load_from.c_str(), m.save_dir.c_str(), m.weight.c_str(),
              m.lora_weight.c_str(), static_cast<long long>(m.hidden_size), static_cast<long long>(m.num_hidden_layers),
              m.use_moe, m.inference_rope_scaling);
}

int pretend_chat(const ChatOptions& options) {
  print_model(options.model);
  std::printf("%g|%g|%lld|%lld\n", options.sampling.temperature, options.sampling.top_p,
              static_cast<long long>(options.sampling.max_new_tokens), static_cast<long long>(options.historys));
  return 0;
}

int pretend_eval(const EvalOptions& options) {
  print_model(options.chat.model);
  std::printf("%d|%s|%lld|%d\n", static_cast<int>(options.mode), options.chat.compute.dtype.c_str(),
              static_cast<long long>(options.chat.historys), options.chat.show_speed);
  return 0;
}

int pretend_convert(const ConvertOptions& options) {
  print_model(options.model);
  std::printf("%s|%s\n", options.to.c_str(), options.dtype.c_str());
  return 0;
}

// The job's settings on one line; a step that never ends, where that is its data.
void pretend_job(const JobRequest& job, const JobRank&, const std::filesystem::path&, const JobHooks& hooks) {
  hooks.on_training(0);
  hooks.on_event(job_json(job).dump());
  while (job.config.data_path == "endless") std::this_thread::sleep_for(Millis(100));
}

void pretend_check(const JobRequest& job) {
  if (job.config.epochs < 1) throw std::invalid_argument("--epochs: 0, expected at least 1");
}

std::string pretend_name(const JobRequest& job) {
  return "job-" + std::to_string(job.kind.index());
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) {
  const troupe::RoleCalls calls{.role = troupe::pretend_role,
                                .standalone = troupe::pretend_standalone,
                                .generate = troupe::pretend_generate,
                                .export_model = troupe::pretend_export,
                                .job = troupe::pretend_job,
                                .checked_job = troupe::pretend_check,
                                .name_of_job = troupe::pretend_name,
                                .chat = troupe::pretend_chat,
                                .eval = troupe::pretend_eval,
                                .convert = troupe::pretend_convert};
  return troupe::command_line(argc, argv, calls, troupe::pretend_cast());
}
