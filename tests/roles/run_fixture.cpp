#include "tests/roles/run_fixture.hpp"

#include <fstream>
#include <map>
#include <memory>
#include <regex>
#include <sstream>
#include <thread>

#include "core/io/disk.hpp"
#include "core/io/sha256.hpp"
#include "core/metrics/metrics_log.hpp"
#include "roles/run_journal.hpp"

namespace troupe {
namespace {

namespace fs = std::filesystem;

std::string read(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void run_to_end(std::vector<std::string> argv, const fs::path& log) {
  // Threads of OpenMP that spin hold the cores of those they wait for, where all cores are busy.
  Process process = Process::spawn({.argv = std::move(argv),
                                    .env = {{"OMP_WAIT_POLICY", "passive"}, {"GOMP_SPINCOUNT", "0"}},
                                    .log_path = log.string()});
  for (int i = 0; i < 3000; ++i) {
    if (const auto status = process.poll()) {
      if (!status->clean()) throw std::runtime_error("setting up the tests failed: " + read(log));
      return;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  throw std::runtime_error("setting up the tests takes longer than 300 s");
}

}  // namespace

const TinyWorld& TinyWorld::get() {
  static const struct World : TinyWorld {
    World() {
      char name[] = "/tmp/troupe-tests-XXXXXX";
      folder = mkdtemp(name);
      const std::string f = folder.string();
      run_to_end({TROUPE_PROGRAM, "data", "arithmetic", "--low", "1", "--high", "9", "--num-held-out", "20", "--train",
                  f + "/train.jsonl", "--held-out", f + "/held_out.jsonl"},
                 folder / "data.log");
      run_to_end({TROUPE_PROGRAM, "data", "tiny-model", "--prompts", f + "/train.jsonl", "--to", f + "/model",
                  "--steps", "120", "--hidden", "64", "--layers", "2"},
                 folder / "model.log");
    }
    ~World() { fs::remove_all(folder); }
  } world;
  return world;
}

TroupeRun::TroupeRun(std::string name, const std::string& config, const std::vector<std::string>& sets,
                     std::vector<std::string> launch, const std::string& faults, const std::filesystem::path& parent)
    : launch_(std::move(launch)),
      folder_((parent.empty() ? TinyWorld::get().folder : parent) / name),
      output_(TinyWorld::get().folder / (name + ".out")) {
  const std::string world = TinyWorld::get().folder.string();
  std::vector<std::string> arguments{"run", std::string(TROUPE_SOURCE_DIR) + "/configs/" + config, "--run-folder",
                                     folder_.string(), "--plain"};
  const auto set = [&](const std::string& text) {
    arguments.push_back("--set");
    arguments.push_back(text);
  };
  set("model=" + world + "/model");
  set("prompts.file=" + world + "/train.jsonl");
  set("prompts.held_out=" + world + "/held_out.jsonl");
  for (const std::string& text : sets) set(text);
  start(std::move(arguments), faults);
}

TroupeRun::~TroupeRun() {
  launcher_.reset();  // SIGKILL; its children die with it
}

void TroupeRun::resume(const std::vector<std::string>& more, const std::string& faults) {
  std::vector<std::string> arguments{"resume", folder_.string(), "--plain"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  start(std::move(arguments), faults);
}

void TroupeRun::start(std::vector<std::string> arguments, const std::string& faults) {
  arguments.insert(arguments.begin(), TROUPE_PROGRAM);
  arguments.insert(arguments.begin(), launch_.begin(), launch_.end());
  launcher_.emplace(
      Process::spawn({.argv = std::move(arguments), .env = {{"TROUPE_FAULTS", faults}}, .log_path = output_.string()}));
}

std::string TroupeRun::output() const {
  return read(output_);
}

std::string TroupeRun::log_of(const std::string& instance) const {
  std::string name = instance;
  std::replace(name.begin(), name.end(), '/', '-');
  return read(folder_ / "logs" / (name + ".log"));
}

bool TroupeRun::wait_for(const std::string& text, int seconds, std::size_t from) const {
  for (int i = 0; i < seconds * 20; ++i) {
    if (output().find(text, from) != std::string::npos) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  ADD_FAILURE() << "no '" << text << "' within " << seconds << " s in:\n" << output();
  return false;
}

bool TroupeRun::wait_for_step(int step, int seconds) const {
  const std::string line = "\"step\":" + std::to_string(step) + ",";
  for (int i = 0; i < seconds * 20; ++i) {
    if (read(folder_ / "metrics.jsonl").find(line) != std::string::npos) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  ADD_FAILURE() << "no step " << step << " within " << seconds << " s in:\n" << output();
  return false;
}

std::size_t TroupeRun::steps_ended() const {
  return read_metrics(folder_ / "metrics.jsonl").size();
}

pid_t TroupeRun::pid_of(const std::string& instance) const {
  const std::regex line("started " + instance + ", incarnation [0-9]+, pid ([0-9]+)");
  const std::string text = output();
  pid_t pid = 0;
  for (std::sregex_iterator it(text.begin(), text.end(), line), end; it != end; ++it) pid = std::stoi((*it)[1]);
  if (pid == 0) ADD_FAILURE() << instance << " was never started:\n" << text;
  return pid;
}

int TroupeRun::wait(int seconds) {
  for (int i = 0; i < seconds * 20; ++i) {
    if (const auto status = launcher_->poll()) {
      launcher_.reset();
      return status->signal ? -status->signal : status->code;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  ADD_FAILURE() << "the run has not ended within " << seconds << " s:\n" << output();
  return -1;
}

std::string TroupeRun::weights_digest() const {
  const fs::path file = folder_ / "export" / "model.safetensors";
  if (!fs::exists(file)) return "";
  const std::string bytes = read(file);
  Sha256 digest;
  digest.update(bytes);
  return digest.finish_hex();
}

std::vector<Experience> TroupeRun::ledger(int steps, int prompts_per_update, int group_size) const {
  std::vector<Experience> batches = read_experiences(folder_ / "journal");
  EXPECT_EQ(batches.size(), static_cast<std::size_t>(steps));
  uint64_t expected = 0;
  for (const Experience& batch : batches) {
    for (int prompt = 0; prompt < prompts_per_update; ++prompt, ++expected)
      for (int sample = 0; sample < group_size; ++sample) {
        const auto i = static_cast<std::size_t>(prompt * group_size + sample);
        EXPECT_EQ(batch.draws.at(i), expected) << "step " << batch.step;
        EXPECT_EQ(batch.samples.at(i), static_cast<uint64_t>(sample)) << "step " << batch.step;
      }
  }
  return batches;
}

const TroupeRun& undisturbed(int steps) {
  static std::map<int, std::unique_ptr<TroupeRun>> runs;
  auto& run = runs[steps];
  if (!run) {
    run =
        std::make_unique<TroupeRun>("undisturbed-" + std::to_string(steps), "grpo-tiny-local.json",
                                    std::vector<std::string>{"nodes.conductor.config.steps=" + std::to_string(steps)});
    if (run->wait() != 0) throw std::runtime_error("the undisturbed run failed:\n" + run->output());
  }
  return *run;
}

}  // namespace troupe
