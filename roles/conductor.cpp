#include "roles/conductor.hpp"

#include "core/metrics/summary.hpp"
#include "roles/model_source.hpp"
#include "roles/run_disk.hpp"

namespace troupe {
namespace {

// The last step whose line is written.
uint64_t last_written(const std::filesystem::path& run_folder) {
  const auto file = run_folder / "metrics.jsonl";
  if (!std::filesystem::exists(file)) return 0;
  const auto lines = read_metrics(file);
  return lines.empty() ? 0 : lines.back().step;
}

std::optional<RuleSet> reward_rules(const Topology& topology) {
  const NodeSection& reward = node_of(topology, instances_of_role(topology, "reward").at(0));
  if (reward.external) return std::nullopt;
  return RuleSet::from_json(reward.config, JsonPath("topology.json", *reward.name + ".config"));
}

}  // namespace

Conductor::Conductor(const RoleSetting& setting, Context& context)
    : config_(from_json<Config>(setting.config(), setting.where())),
      setting_(setting),
      context_(context),
      tokenizer_(load_tokenizer(*setting.topology.model)),
      rules_(reward_rules(setting.topology)),
      loop_(setting_.topology, config_, read(*setting.topology.prompts.file), context, journal_disk(),
            setting.run_folder, [this](uint64_t step, MetricValues metrics) { end_step(step, std::move(metrics)); }) {
  const PromptsSection& prompts = setting_.topology.prompts;
  if (!prompts.held_out.empty())
    evaluation_.emplace(context, config_.evaluation, setting_.topology.sampling, setting_.topology.run.seed,
                        read(prompts.held_out),
                        context.handle<RewardFace>(instances_of_role(setting_.topology, "reward").front()),
                        rules_ ? rules_->shaping() : std::set<std::string>(),
                        Millis(static_cast<int64_t>(setting_.topology.transport.ask_timeout_s * 1000)));
}

std::vector<TokenizedPrompt> Conductor::read(const std::string& file) const {
  std::vector<TokenizedPrompt> prompts = read_tokenized_prompts(file, tokenizer_, setting_.topology.prompts);
  if (rules_) check_expected_answers(prompts, file, *rules_, setting_.topology.sampling.max_new_tokens);
  return prompts;
}

void Conductor::run(Context&) {
  const uint64_t written = last_written(setting_.run_folder);
  patiently([&] { metrics_.emplace(setting_.run_folder, written); });
  loop_.recover(written);
  if (loop_.held() == 0 && !read_summary(setting_.run_folder).contains("accuracy_before")) evaluate("accuracy_before");
  loop_.train();
  finish();
}

void Conductor::end_step(uint64_t step, MetricValues metrics) {
  const bool wanted = evaluation_ && config_.evaluation.every > 0 &&
                      step % static_cast<uint64_t>(config_.evaluation.every) == 0 &&
                      step < static_cast<uint64_t>(*config_.steps);
  if (wanted && step == loop_.held() && !context_.stopping()) {
    Generation generation = loop_.generation();
    const Accuracy accuracy = evaluation_->run(generation, step);
    if (!context_.stopping()) metrics["accuracy"] = accuracy.value;  // else not all prompts were asked
  }
  patiently([&] {
    if (!metrics_) metrics_.emplace(setting_.run_folder, step - 1);
    try {
      metrics_->write(step, metrics);
    } catch (const DiskError&) {
      metrics_.reset();  // opened anew, it cuts away the part of a line that was written
      throw;
    }
  });
}

void Conductor::evaluate(const std::string& key) {
  if (!evaluation_) return;
  Generation generation = loop_.generation();
  const Accuracy accuracy = evaluation_->run(generation, loop_.held());
  if (context_.stopping()) return;  // not all prompts were asked
  patiently([&] {
    merge_summary(setting_.run_folder, {{key, accuracy.value}, {"held_out_prompts", accuracy.prompts}});
  });
}

void Conductor::finish() {
  const bool done = loop_.done();
  if (done) evaluate("accuracy_after");
  const std::string folder = config_.export_model ? (setting_.run_folder / "export").string() : "";
  if (loop_.ended() > 0) loop_.checkpoint(folder);
  patiently([&] {
    merge_summary(setting_.run_folder,
                  {{"steps", loop_.ended()}, {"state", done ? "done" : "stopped"}, {"export", folder}});
  });
}

}  // namespace troupe
