#include "roles/replay_command.hpp"

#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <fstream>

#include "core/io/checkpoint.hpp"
#include "core/io/model_folder.hpp"
#include "core/metrics/metrics_log.hpp"
#include "roles/replayed_learners.hpp"
#include "roles/rescore.hpp"
#include "roles/reward_model.hpp"
#include "roles/run_journal.hpp"

namespace troupe {
namespace {

namespace fs = std::filesystem;

// Removed with its content at the end of scope.
class ScratchFolder {
 public:
  ScratchFolder() {
    std::string name = (fs::temp_directory_path() / "troupe-replay-XXXXXX").string();
    if (!mkdtemp(name.data())) throw std::runtime_error(name + ": cannot be made");
    path_ = name;
  }
  ~ScratchFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

// The checkpoints of `run` before `step`, linked into a folder of their own: the learner loads the newest that is
// whole.
fs::path folder_before(const fs::path& run, uint64_t step, const fs::path& made) {
  fs::create_directories(made / "checkpoints");
  for (const fs::path& checkpoint : list_checkpoints(real_disk(), run / "checkpoints"))
    if (std::stoull(checkpoint.filename().string().substr(5)) < step)
      fs::create_directory_symlink(fs::absolute(checkpoint), made / "checkpoints" / checkpoint.filename());
  return made;
}

std::vector<Experience> batches_of(const fs::path& run, uint64_t from, uint64_t to) {
  std::vector<Experience> out;
  uint64_t last = 0;
  visit_experiences(run / "journal", [&](uint64_t, const Experience& batch) {
    last = batch.step;
    if (batch.step >= from && batch.step <= to) out.push_back(batch);
  });
  if (last < to)
    throw std::invalid_argument("the journal ends at step " + std::to_string(last) + ", asked for step " +
                                std::to_string(to));
  return out;
}

bool same_bytes(const fs::path& a, const fs::path& b) {
  std::ifstream in_a(a, std::ios::binary), in_b(b, std::ios::binary);
  if (!in_a || !in_b) throw std::runtime_error((in_a ? b : a).string() + ": cannot be read");
  std::vector<char> of_a(1 << 20), of_b(1 << 20);
  for (;;) {
    in_a.read(of_a.data(), static_cast<std::streamsize>(of_a.size()));
    in_b.read(of_b.data(), static_cast<std::streamsize>(of_b.size()));
    if (in_a.gcount() != in_b.gcount() || !std::equal(of_a.begin(), of_a.begin() + in_a.gcount(), of_b.begin()))
      return false;
    if (in_a.gcount() == 0) return true;
  }
}

// Of how the run went, not of what it computed.
bool is_of_course(const std::string& metric) {
  return metric.starts_with("tokens_per_s") || metric.starts_with("seconds_") || metric.starts_with("learner_");
}

bool same(double a, double b) {
  return a == b || (std::isnan(a) && std::isnan(b));
}

// ---- as it was ------------------------------------------------------------------------------------------------------

class Comparison {
 public:
  Comparison(const fs::path& run, const fs::path& scratch) : run_(run), scratch_(scratch) {
    for (const StepMetrics& line : read_metrics(run / "metrics.jsonl")) recorded_[line.step] = line.values;
  }

  void step(ReplayedLearners& learner, const Updated& updated) {
    const auto line = recorded_.find(updated.step);
    int metrics = 0;
    std::string weights;
    if (line != recorded_.end()) {
      for (const auto& [name, value] : updated.metrics) {
        const auto was = line->second.find(name);
        if (is_of_course(name) || was == line->second.end()) continue;
        ++metrics;
        if (!same(was->second, value)) differs(updated.step, name, value, was->second);
      }
      if (const auto was = line->second.find("weights_digest"); was != line->second.end()) {
        const double digest = learner.digest();
        if (digest != was->second) differs(updated.step, "weights_digest", digest, was->second);
        weights = "the published weights";
      }
    }
    char name[40];
    std::snprintf(name, sizeof name, "step-%06" PRIu64, updated.step);
    if (const fs::path was = run_ / "checkpoints" / name; fs::exists(was)) {
      const fs::path now = learner.checkpoint(scratch_ / "now");
      if (!same_bytes(was / "learner.safetensors", now / "learner.safetensors"))
        complain("step " + std::to_string(updated.step) + ": weights and optimizer are not those of " + was.string());
      fs::remove_all(now);
      weights += std::string(weights.empty() ? "" : " and ") + "the checkpoint (weights, optimizer)";
    }
    if (metrics == 0) complain("step " + std::to_string(updated.step) + ": metrics.jsonl has no line to compare with");
    if (weights.empty()) complain("step " + std::to_string(updated.step) + ": the run recorded no weights of it");
    const auto loss = updated.metrics.find("loss");
    std::printf("step %" PRIu64 ": loss %.9g; compared %d metrics and %s\n", updated.step,
                loss == updated.metrics.end() ? std::nan("") : loss->second, metrics,
                weights.empty() ? "no weights" : weights.c_str());
    std::fflush(stdout);
  }

  int faults() const { return faults_; }

 private:
  void differs(uint64_t step, const std::string& name, double now, double was) {
    char text[160];
    std::snprintf(text, sizeof text, "step %" PRIu64 ": %s is %.17g, in the run it was %.17g", step, name.c_str(), now,
                  was);
    complain(text);
  }
  void complain(const std::string& line) {
    ++faults_;
    std::fprintf(stderr, "troupe: %s\n", line.c_str());
  }

  const fs::path run_, scratch_;
  std::map<uint64_t, MetricValues> recorded_;
  int faults_ = 0;
};

// ---- what if --------------------------------------------------------------------------------------------------------

std::optional<RuleSet> rules_of(const ReplayChoice& choice, const Topology& topology) {
  if (choice.reward) {
    const JsonFile file = read_config_file(*choice.reward);
    return RuleSet::from_json(file.value, file.where);
  }
  const NodeSection& reward = node_of(topology, instances_of_role(topology, "reward").at(0));
  if (reward.external) return std::nullopt;
  return RuleSet::from_json(reward.config, JsonPath("topology.json", *reward.name + ".config"));
}

void print_both(uint64_t step, const Experience& was, const Updated& updated, const Experience& changed,
                const Updated& what_if) {
  const auto mean = [](const Experience& batch) {
    double sum = 0;
    for (const float reward : batch.rewards.as<float>()) sum += reward;
    return sum / static_cast<double>(batch.rewards.numel());
  };
  std::printf("step %-29" PRIu64 " %16s %16s %16s\n", step, "as it was", "what if", "difference");
  const auto line = [](const std::string& name, double a, double b) {
    std::printf("  %-32s %16.9g %16.9g %16.9g\n", name.c_str(), a, b, b - a);
  };
  line("reward_mean", mean(was), mean(changed));
  for (const auto& [name, value] : updated.metrics)
    if (const auto other = what_if.metrics.find(name); other != what_if.metrics.end() && !is_of_course(name))
      line(name, value, other->second);
  std::fflush(stdout);
}

}  // namespace

int replay_command(const ReplayChoice& choice) {
  if (choice.export_to) require_replaceable(*choice.export_to);
  const Topology topology = read_run_topology(choice.run);
  const bool what_if = choice.changed || choice.reward;
  const ScratchFolder scratch;
  const std::string export_to = choice.export_to ? choice.export_to->string() : "";

  ReplayedLearners learner(topology, folder_before(choice.run, choice.from, scratch.path() / "as-it-was"));
  const uint64_t start = learner.step();
  const std::vector<Experience> batches = batches_of(choice.run, start + 1, choice.to);
  std::printf("from %s, %" PRIu64 " steps fed again before step %" PRIu64 "\n",
              start == 0 ? "the base model" : ("the checkpoint of step " + std::to_string(start)).c_str(),
              choice.from - 1 - start, choice.from);
  std::size_t next = 0;
  for (; batches[next].step < choice.from; ++next) learner.update(batches[next]);

  if (!what_if) {
    Comparison comparison(choice.run, scratch.path());
    for (; next < batches.size(); ++next) comparison.step(learner, learner.update(batches[next]));
    if (choice.export_to) learner.checkpoint(scratch.path() / "last", export_to);
    if (comparison.faults() > 0) return 1;
    std::printf("equal, bit for bit\n");
    return 0;
  }

  const Topology& changed = choice.changed ? *choice.changed : topology;
  const Rescorer rescore(changed, make_algorithm(changed.algorithm, JsonPath("topology.json", "algorithm")),
                         rules_of(choice, changed));
  const fs::path other_folder = scratch.path() / "what-if";
  if (choice.from > 1) learner.checkpoint(other_folder / "checkpoints");  // the very state before the step
  ReplayedLearners other(changed, other_folder);
  for (; next < batches.size(); ++next) {
    const Experience other_batch = rescore(batches[next]);
    const Updated was = learner.update(batches[next]);
    print_both(was.step, batches[next], was, other_batch, other.update(other_batch));
  }
  if (choice.export_to) other.checkpoint(scratch.path() / "last", export_to);
  return 0;
}

}  // namespace troupe
