#include "roles/ledger.hpp"

#include <algorithm>
#include <map>
#include <set>

#include "core/config.hpp"
#include "core/io/checkpoint.hpp"
#include "core/metrics/metrics_log.hpp"
#include "roles/conductor_config.hpp"
#include "roles/run_file.hpp"
#include "roles/run_journal.hpp"
#include "roles/topology.hpp"

namespace troupe {
namespace {

constexpr std::size_t kMostLines = 100;  // of violations: one fault may break a rule in every step

class Audit {
 public:
  explicit Audit(const std::filesystem::path& run_folder)
      : folder_(run_folder),
        topology_(read_run_topology(run_folder)),
        names_{folder_.filename().string(), std::filesystem::absolute(folder_).lexically_normal().filename().string()} {
    if (std::filesystem::exists(folder_ / "run.json")) names_.push_back(read_run_file(folder_).name);
    for (const NodeSection& node : topology_.nodes)
      if (role_of(node) == "conductor")
        config_ = from_json<ConductorConfig>(node.config, JsonPath("topology.json", *node.name + ".config"));
  }

  void read_journal() {
    try {
      const JournalEnd end = visit_experiences(
          folder_ / "journal", [this](uint64_t offset, const Experience& batch) { read_batch(offset, batch); });
      ledger_.bytes = end.offset;
      ledger_.torn_bytes = end.torn_bytes;
    } catch (const std::exception& error) {
      say(error.what());
      damaged_ = true;
    }
    ledger_.draws = groups_.size();
    if (!ends_.empty() && !damaged_) ends_.rbegin()->second = ledger_.bytes;
  }

  void read_checkpoints() {
    for (const auto& path : list_checkpoints(real_disk(), folder_ / "checkpoints")) {
      ledger_.checkpoints.push_back(path.filename().string());
      try {
        read_checkpoint(load_checkpoint(real_disk(), path));
      } catch (const std::exception& error) {
        say(error.what());
      }
    }
  }

  void read_metrics() {
    const auto file = folder_ / "metrics.jsonl";
    std::vector<StepMetrics> lines;
    try {
      if (std::filesystem::exists(file)) lines = troupe::read_metrics(file);
    } catch (const std::exception& error) {
      say(error.what());
    }
    uint64_t expected = 1;
    for (const StepMetrics& line : lines) {
      if (line.step != expected)
        say("metrics.jsonl: step " + std::to_string(line.step) + " where step " + std::to_string(expected) +
            " was expected");
      expected = line.step + 1;
      metrics_[line.step] = line.values;
    }
    // The last journalled step may be under way.
    if (!damaged_ && (expected - 1 > ledger_.steps || expected < ledger_.steps))
      say("metrics.jsonl ends at step " + std::to_string(expected - 1) + ", the journal at step " +
          std::to_string(ledger_.steps));
  }

  void check_draws() {
    for (const auto& [draw, group] : groups_)
      if (group.samples != static_cast<uint64_t>(config_.group_size))
        say("draw " + std::to_string(draw) + " has " + std::to_string(group.samples) + " samples in step " +
            std::to_string(group.step) + ", expected " + std::to_string(config_.group_size));
    const bool done = ledger_.steps >= static_cast<uint64_t>(*config_.steps);
    if (damaged_ || groups_.empty() || (config_.max_staleness > 0 && !done)) return;
    if (const uint64_t last = groups_.rbegin()->first; last + 1 != groups_.size())
      say(std::to_string(last + 1 - groups_.size()) + " of the draws 0 to " + std::to_string(last) + " are in no step");
  }

  Ledger take() {
    if (ledger_.violations.size() > kMostLines) {
      const std::size_t more = ledger_.violations.size() - kMostLines;
      ledger_.violations.resize(kMostLines);
      say("and " + std::to_string(more) + " more");
    }
    return std::move(ledger_);
  }

 private:
  struct Group {
    uint64_t step = 0, samples = 0;
  };

  void say(std::string line) { ledger_.violations.push_back(std::move(line)); }

  void read_batch(uint64_t offset, const Experience& batch) {
    const std::string step = "step " + std::to_string(batch.step);
    if (batch.step != ledger_.steps + 1)
      say("journal offset " + std::to_string(offset) + ": " + step + " where step " +
          std::to_string(ledger_.steps + 1) + " was expected");
    if (!ends_.empty()) ends_.rbegin()->second = offset;
    ends_[batch.step] = offset;
    ledger_.steps = batch.step;
    for (std::size_t i = 0; i < batch.draws.size(); ++i) read_sample(batch, i);
    for (const int32_t length : batch.prompt_lengths.as<int32_t>())
      ledger_.prompt_tokens += static_cast<uint64_t>(length);
    ledger_.answer_tokens += static_cast<uint64_t>(batch.versions.numel());
    read_versions(batch);
  }

  void read_sample(const Experience& batch, std::size_t i) {
    const uint64_t draw = batch.draws[i], sample = batch.samples.at(i);
    ++ledger_.samples;
    if (batch.keep.as<uint8_t>()[i] == 0) ++ledger_.left_out;
    Group& group = groups_.try_emplace(draw, Group{batch.step, 0}).first->second;
    // Samples of a draw stand one after another: 0, 1, 2 ...
    if (group.step != batch.step || sample != group.samples)
      say("draw " + std::to_string(draw) + " sample " + std::to_string(sample) + " is in step " +
          std::to_string(batch.step) +
          (group.step != batch.step ? " and in step " + std::to_string(group.step)
                                    : ", where sample " + std::to_string(group.samples) + " was expected"));
    ++group.samples;
  }

  void read_versions(const Experience& batch) {
    const auto versions = batch.versions.as<int32_t>();
    if (versions.empty()) return;
    const auto [low, high] = std::minmax_element(versions.begin(), versions.end());
    const int64_t newest = static_cast<int64_t>(batch.step) - 1;
    ledger_.oldest_version = batch.step == 1 ? *low : std::min<int64_t>(ledger_.oldest_version, *low);
    ledger_.newest_version = std::max<int64_t>(ledger_.newest_version, *high);
    ledger_.staleness = std::max<int64_t>(ledger_.staleness, newest - *low);
    if (*low < newest - config_.max_staleness || *high > newest)
      say("step " + std::to_string(batch.step) + " trains on tokens of versions " + std::to_string(*low) + " to " +
          std::to_string(*high) + ", expected " + std::to_string(std::max<int64_t>(0, newest - config_.max_staleness)) +
          " to " + std::to_string(newest));
  }

  void read_checkpoint(const LoadedCheckpoint& checkpoint) {
    const std::string name = checkpoint.folder.filename().string();
    const uint64_t step = checkpoint.meta.step;
    if (std::ranges::find(names_, checkpoint.meta.run) == names_.end())
      say(name + " is of run '" + checkpoint.meta.run + "'");
    if (damaged_) return;
    const auto end = ends_.find(step);
    if (end == ends_.end())
      say(name + " is of a step that the journal does not hold; it ends at step " + std::to_string(ledger_.steps));
    else if (end->second != checkpoint.meta.journal_offset)
      say(name + " points at journal offset " + std::to_string(checkpoint.meta.journal_offset) +
          ", the record of its step ends at " + std::to_string(end->second));
    const auto line = metrics_.find(step);
    if (line == metrics_.end()) return;
    const Json told = parse_json(checkpoint.meta.extra, name);
    for (const char* key : {"loss", "grad_norm"})
      if (told.is_object() && told.contains(key) && line->second.contains(key) &&
          told[key].get<double>() != line->second.at(key))
        say(name + " is of another course of the run: its step had " + key + " " + told[key].dump() +
            ", metrics.jsonl says " + Json(line->second.at(key)).dump());
  }

  const std::filesystem::path folder_;
  const Topology topology_;
  std::vector<std::string> names_;  // that the run has or had: its folder may have been moved
  ConductorConfig config_;
  Ledger ledger_;
  bool damaged_ = false;               // the journal could not be read to its end
  std::map<uint64_t, Group> groups_;   // by draw
  std::map<uint64_t, uint64_t> ends_;  // step -> where its record ends
  std::map<uint64_t, MetricValues> metrics_;
};

}  // namespace

Ledger read_ledger(const std::filesystem::path& run_folder) {
  Audit audit(run_folder);
  audit.read_journal();
  audit.read_checkpoints();
  return audit.take();
}

Ledger check_ledger(const std::filesystem::path& run_folder) {
  Audit audit(run_folder);
  audit.read_journal();
  audit.read_metrics();
  audit.read_checkpoints();
  audit.check_draws();
  return audit.take();
}

}  // namespace troupe
