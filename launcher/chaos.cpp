#include "launcher/chaos.hpp"

#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <map>
#include <random>
#include <stdexcept>
#include <thread>

#include "actors/fault_hooks.hpp"
#include "actors/process.hpp"
#include "core/io/disk.hpp"
#include "core/io/sha256.hpp"
#include "roles/run_file.hpp"

namespace troupe {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kLookEvery{20};

double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

std::string contents(const fs::path& file, std::size_t from = 0) {
  std::ifstream in(file, std::ios::binary);
  in.seekg(static_cast<std::streamoff>(from));
  return {std::istreambuf_iterator<char>(in), {}};
}

// Of this process, and not of another that got its number: its parent is the launcher that said it started it.
bool is_child(pid_t pid, pid_t parent) {
  const std::string stat = contents("/proc/" + std::to_string(pid) + "/stat");
  const std::size_t name_end = stat.rfind(')');
  if (name_end == stat.npos || name_end + 4 > stat.size()) return false;
  return std::atoi(stat.c_str() + name_end + 3) == parent;
}

// A `troupe run` or `troupe resume` and what it says.
class Play {
 public:
  Play(const std::string& program, std::vector<std::string> arguments, const fs::path& log, const std::string& faults)
      : log_(log), read_(fs::exists(log) ? fs::file_size(log) : 0) {
    arguments.insert(arguments.begin(), program);
    process_.emplace(
        Process::spawn({.argv = std::move(arguments), .env = {{"TROUPE_FAULTS", faults}}, .log_path = log.string()}));
  }

  std::optional<ExitStatus> poll() { return process_->poll(); }
  void kill_all() { process_->signal(SIGKILL); }

  // What it has said since the last call: who lives where, and who died.
  std::vector<std::string> read() {
    std::vector<std::string> died;
    const std::string text = contents(log_, read_);
    const std::size_t end = text.rfind('\n');
    if (end == text.npos) return died;
    read_ += end + 1;
    for (std::size_t at = 0; at < end;) {
      const std::size_t next = text.find('\n', at);
      const std::string line = text.substr(at, next - at);
      at = next + 1;
      char node[80];
      unsigned long long incarnation = 0;
      int pid = 0;
      if (std::sscanf(line.c_str(), "started %79[^,], incarnation %llu, pid %d", node, &incarnation, &pid) == 3)
        pids_[node] = pid;
      else if (const std::size_t colon = line.find(": "); line.find("; restart ") != line.npos && colon != line.npos)
        died.push_back(line.substr(0, colon));
    }
    return died;
  }

  // Signals a node's newest process; false when it is not there.
  bool signal(const std::string& node, int number) {
    const auto found = pids_.find(node);
    if (found == pids_.end() || !is_child(found->second, process_->pid())) return false;
    return ::kill(found->second, number) == 0;
  }

 private:
  const fs::path log_;
  std::size_t read_;
  std::optional<Process> process_;
  std::map<std::string, pid_t> pids_;
};

class Chaos {
 public:
  Chaos(const ChaosOptions& options, const Topology& topology, const std::function<void(const std::string&)>& tell)
      : options_(options), topology_(topology), tell_(tell), random_(options.seed) {
    for (const NodeSection& node : topology.nodes)
      if (!node.external)
        for (std::string& instance : instances_of(node)) nodes_.push_back(std::move(instance));
    kills_left_ = options.kills;
    stops_left_ = options.stops;
  }

  ChaosResult run() {
    fs::create_directories(options_.folder);
    result_.reference = options_.reference;
    if (result_.reference.empty() && topology_.run.deterministic) make_reference();
    while (kills_left_ + stops_left_ > 0 && result_.violations.size() < 20) round();
    if (result_.rounds > 0) result_.faulty_s /= static_cast<double>(result_.rounds);
    return std::move(result_);
  }

 private:
  double chance() { return std::uniform_real_distribution<double>(0, 1)(random_); }
  std::size_t pick(std::size_t count) { return std::uniform_int_distribution<std::size_t>(0, count - 1)(random_); }
  double next_gap() { return -options_.every_s * std::log(1 - chance()); }
  void violation(const std::string& line) {
    result_.violations.push_back("round " + std::to_string(result_.rounds) + ": " + line);
    tell_("VIOLATION: " + result_.violations.back());
  }

  std::vector<std::string> run_arguments(const fs::path& folder) const {
    std::vector<std::string> out{"run", options_.topology_file.string(), "--plain", "--run-folder", folder.string()};
    for (const std::string& set : options_.sets) {
      out.push_back("--set");
      out.push_back(set);
    }
    return out;
  }

  void make_reference() {
    const fs::path folder = options_.folder / "reference";
    const auto began = Clock::now();
    Play play(options_.program, run_arguments(folder), folder.string() + ".out", "");
    std::optional<ExitStatus> ended;
    while (!(ended = play.poll())) std::this_thread::sleep_for(kLookEvery);
    if (!ended->clean())
      throw std::runtime_error("the undisturbed run failed (" + ended->text() + "):\n" +
                               tail(folder.string() + ".out", 15));
    result_.undisturbed_s = seconds_between(began, Clock::now());
    result_.reference = checkpoint_digest(folder);
    if (result_.reference.empty())
      throw std::runtime_error("the undisturbed run left no checkpoint in " + folder.string());
    tell_("undisturbed: " + std::to_string(result_.undisturbed_s) + " s, last checkpoint " + result_.reference);
  }

  // Kills at points for the processes of one start, more than will be met.
  std::string draw_fault_points() {
    std::string out;
    if (options_.fault_points <= 0) return out;
    for (int i = 0; i < 4 && kills_left_ > 0; ++i) {
      const std::string& node = nodes_[pick(nodes_.size())];
      const std::string role = role_of(node_of(topology_, node));
      std::vector<std::string_view> phases;
      for (const FaultPhase& phase : kFaultPhases)
        if (phase.role == "*" || phase.role == role) phases.push_back(phase.name);
      const std::string_view phase = phases[pick(phases.size())];
      // Starts and loads come once in a life; of what comes often, any of the first thirty.
      const std::size_t passage = phase == "start" || phase == "load" ? 1 : 1 + pick(30);
      out += (out.empty() ? "" : ";") + node + "#" + std::to_string(1 + pick(2)) + ":" + std::string(phase) + ":" +
             std::to_string(passage) + ":kill";
    }
    return out;
  }

  // Lines "fault on purpose" in the logs of a round.
  static int64_t points_met(const fs::path& folder) {
    int64_t met = 0;
    if (!fs::exists(folder / "logs")) return met;
    for (const auto& entry : fs::directory_iterator(folder / "logs")) {
      const std::string text = contents(entry.path());
      for (std::size_t at = text.find("fault on purpose"); at != text.npos; at = text.find("fault on purpose", at + 1))
        ++met;
    }
    return met;
  }

  void round();
  void deal_fault(Play& play, Clock::time_point now);
  void heed(Play& play, const fs::path& folder, Clock::time_point now);
  void audit(const fs::path& folder);

  const ChaosOptions& options_;
  const Topology& topology_;
  const std::function<void(const std::string&)>& tell_;
  std::mt19937_64 random_;
  std::vector<std::string> nodes_;
  int64_t kills_left_ = 0, stops_left_ = 0;
  ChaosResult result_;
  // Of the round under way.
  std::multimap<std::string, Clock::time_point> hit_;  // by us, its death not yet told
  std::vector<Clock::time_point> waiting_;             // faults without a finished step since
  uintmax_t metrics_bytes_ = 0;
  bool power_cut_ = false;
};

// One fault from the bag, now; none when its target is not there.
void Chaos::deal_fault(Play& play, Clock::time_point now) {
  const auto left = static_cast<double>(kills_left_ + stops_left_);
  if (left == 0) return;
  if (chance() * left < static_cast<double>(kills_left_)) {
    if (chance() < options_.power_cuts) {
      play.kill_all();
      power_cut_ = true;
      ++result_.power_cuts;
    } else if (chance() < options_.fault_points) {
      return;  // its turn comes at a point
    } else {
      const std::string& node = nodes_[pick(nodes_.size())];
      if (!play.signal(node, SIGKILL)) return;
      hit_.emplace(node, now);
    }
    --kills_left_;
    ++result_.kills;
  } else {
    const std::string& node = nodes_[pick(nodes_.size())];
    if (!play.signal(node, SIGSTOP)) return;
    hit_.emplace(node, now);
    --stops_left_;
    ++result_.stops;
  }
  waiting_.push_back(now);
}

// What the run has said and written since.
void Chaos::heed(Play& play, const fs::path& folder, Clock::time_point now) {
  for (const std::string& node : play.read()) {
    if (const auto ours = hit_.find(node); ours != hit_.end())
      hit_.erase(ours);
    else
      waiting_.push_back(now);  // at a fault point
  }
  std::error_code missing;
  const uintmax_t bytes = fs::file_size(folder / "metrics.jsonl", missing);
  if (missing || bytes == metrics_bytes_) return;
  if (bytes > metrics_bytes_) {  // shorter: cut back by a restart
    for (const auto since : waiting_) result_.recovery_s.push_back(seconds_between(since, now));
    waiting_.clear();
  }
  metrics_bytes_ = bytes;
}

void Chaos::round() {
  ++result_.rounds;
  const fs::path folder = options_.folder / ("round-" + std::to_string(result_.rounds));
  const fs::path log = folder.string() + ".out";
  const int64_t kills_before = result_.kills, stops_before = result_.stops;
  hit_.clear();
  waiting_.clear();
  metrics_bytes_ = 0;
  const auto began = Clock::now();
  auto play = std::make_unique<Play>(options_.program, run_arguments(folder), log, draw_fault_points());
  double due = next_gap();
  for (;;) {
    std::this_thread::sleep_for(kLookEvery);
    const auto now = Clock::now();
    heed(*play, folder, now);
    if (const auto ended = play->poll()) {
      const bool cut = std::exchange(power_cut_, false);
      if (!cut && ended->clean()) break;
      if (!cut) {
        violation("the run ended with " + ended->text() + ": " + tail(log.string(), 3));
        break;
      }
      // A cut before the run had its files is a run that was never begun.
      const bool begun = fs::exists(folder / "run.json") && fs::exists(folder / "topology.json");
      if (!begun) fs::remove_all(folder);
      std::vector<std::string> again{"resume", folder.string(), "--plain"};
      play = std::make_unique<Play>(options_.program, begun ? again : run_arguments(folder), log, draw_fault_points());
      due = seconds_between(began, now) + next_gap();
      continue;
    }
    if (seconds_between(began, now) > options_.round_limit_s) {
      violation("no end within " + std::to_string(options_.round_limit_s) + " s: " + tail(log.string(), 3));
      break;
    }
    if (seconds_between(began, now) < due || power_cut_) continue;
    due += next_gap();
    deal_fault(*play, now);
  }
  play.reset();
  const int64_t met = points_met(folder);
  result_.at_fault_points += met;
  result_.kills += met;
  kills_left_ = std::max<int64_t>(0, kills_left_ - met);
  result_.faulty_s += seconds_between(began, Clock::now());
  audit(folder);
  tell_("round " + std::to_string(result_.rounds) + ": " + std::to_string(result_.kills - kills_before) + " kills, " +
        std::to_string(result_.stops - stops_before) + " stops, " +
        std::to_string(seconds_between(began, Clock::now())) + " s, " + std::to_string(result_.identical) + " of " +
        std::to_string(result_.rounds) + " identical");
}

void Chaos::audit(const fs::path& folder) {
  const fs::path log = folder.string() + ".audit";
  Process journal = Process::spawn({.argv = {options_.program, "journal", folder.string(), "--check"},
                                    .env = {{"TROUPE_FAULTS", ""}},
                                    .log_path = log.string()});
  std::optional<ExitStatus> ended;
  while (!(ended = journal.poll())) std::this_thread::sleep_for(kLookEvery);
  if (!ended->clean()) violation("the ledger: " + tail(log.string(), 10));
  if (result_.reference.empty()) return;
  const std::string digest = checkpoint_digest(folder);
  if (digest == result_.reference)
    ++result_.identical;
  else
    violation("the last checkpoint is " + (digest.empty() ? "missing" : digest) + ", undisturbed it is " +
              result_.reference);
}

}  // namespace

ChaosResult run_chaos(const ChaosOptions& options, const Topology& topology,
                      const std::function<void(const std::string&)>& tell) {
  if (topology.run.mode != RunMode::kProcesses)
    throw std::invalid_argument("chaos kills processes: the topology's run.mode must be \"processes\"");
  return Chaos(options, topology, tell).run();
}

std::string checkpoint_digest(const fs::path& run_folder) {
  std::vector<fs::path> made, files;
  if (!fs::exists(run_folder / "checkpoints")) return "";
  for (const auto& entry : fs::directory_iterator(run_folder / "checkpoints"))
    if (fs::exists(entry.path() / "manifest.json") && entry.path().extension() != ".tmp") made.push_back(entry.path());
  if (made.empty()) return "";
  const auto newest = std::ranges::max_element(made, {}, [](const fs::path& path) {
    return std::pair(path.filename().string().size(), path.filename().string());
  });
  for (const auto& entry : fs::directory_iterator(*newest))
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  std::ranges::sort(files);
  Sha256 hash;
  hash.update(newest->filename().string());
  for (const fs::path& file : files) hash.update(contents(file));
  return hash.finish_hex();
}

double percentile(std::vector<double> values, double p) {
  if (values.empty()) return 0;
  std::ranges::sort(values);
  const auto rank = static_cast<std::size_t>(std::ceil(p * static_cast<double>(values.size())));
  return values[std::clamp<std::size_t>(rank, 1, values.size()) - 1];
}

}  // namespace troupe
