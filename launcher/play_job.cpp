#include "launcher/play_job.hpp"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <thread>

#include "actors/process.hpp"
#include "core/metrics/summary.hpp"
#include "launcher/run_display.hpp"
#include "launcher/run_folder.hpp"
#include "launcher/spawn.hpp"
#include "launcher/stop_signals.hpp"

namespace troupe {
namespace {

namespace fs = std::filesystem;

fs::path job_folder(const JobRequest& job, const RoleCalls& calls) {
  const std::string& wanted = job.config.run_folder;
  return fs::absolute(wanted.empty() ? fs::path("runs") / calls.name_of_job(job) : fs::path(wanted)).lexically_normal();
}

void write_settings(const JobRequest& job, const fs::path& folder) {
  const OrderedJson settings = job_json(job);
  const OrderedJson file{
      {"algorithm", {{"type", settings.at("job")}}}, {"model", job.config.from_weight}, {"job", settings}};
  if (!(std::ofstream(folder / "job.json", std::ios::trunc) << file.dump(2) << '\n' << std::flush))
    throw std::runtime_error("cannot write " + (folder / "job.json").string());
}

// What the display needs to know of a job.
Topology as_topology(const JobRequest& job) {
  Topology out;
  const auto* distill = std::get_if<DistillJob>(&job.kind);
  const std::string& from = distill ? distill->from_student_weight : job.config.from_weight;
  out.model.value = from == "none" ? "from random weights" : from;
  out.algorithm = Json{{"type", job_json(job).at("job").get<std::string>()}};
  NodeSection trainer;
  trainer.name.value = "trainer";
  out.nodes.push_back(trainer);
  return out;
}

// Ranks 1 .. N - 1 of a job that this process starts itself; they die with it.
class OtherRanks {
 public:
  OtherRanks(int64_t size, int port, const fs::path& logs) {
    const std::vector<std::string> arguments = own_arguments();
    for (int64_t rank = 1; rank < size; ++rank) {
      ProcessOptions options{.argv = arguments,
                             .log_path = (logs / ("rank-" + std::to_string(rank) + ".log")).string()};
      fs::remove(options.log_path);  // an earlier start's
      options.argv[0] = kOwnProgram;
      options.env = {{"RANK", std::to_string(rank)}, {"WORLD_SIZE", std::to_string(size)},
                     {"MASTER_ADDR", "127.0.0.1"},   {"MASTER_PORT", std::to_string(port)},
                     {"TROUPE_SECRET", ""},  // not needed on one host
                     {"TROUPE_SECRET_FILE", ""}};
      logs_.push_back(options.log_path);
      processes_.push_back(Process::spawn(options));
    }
  }

  // The first that ends otherwise than cleanly within two seconds, in words; "" when there is none.
  std::string failure() {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(2);
    do {
      for (std::size_t i = 0; i < processes_.size(); ++i)
        if (const auto status = processes_[i].poll(); status && !status->clean())
          return "rank " + std::to_string(i + 1) + " ended with " + status->text() + ": " + tail(logs_[i], 3);
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    } while (std::chrono::steady_clock::now() < until);
    return "";
  }

 private:
  std::vector<Process> processes_;
  std::vector<std::string> logs_;
};

// Tells what a stop request leads to, and ends the process at a second one, after calling `close`.
std::jthread watch_stop_signals(RunDisplay& display, const std::atomic<bool>& training, std::function<void()> close) {
  catch_stop_signals(SecondStop::kCaller);
  return std::jthread([&display, &training, close = std::move(close)](const std::stop_token& ended) {
    for (StopNotice notice; !ended.stop_requested(); std::this_thread::sleep_for(std::chrono::milliseconds(20))) {
      if (training) notice.tell(display);
      if (stop_requests() < 2) continue;
      if (!training) display.event("stopping at once");
      close();
      end_by_force();
    }
  });
}

void print_closing(const fs::path& folder, const JobRequest& job) {
  const nlohmann::json summary = read_summary(folder);
  std::string line = summary.value("state", "") + " after " + std::to_string(summary.value("steps", 0)) + " batches";
  for (const auto& [key, value] : summary.items()) {
    if (!key.ends_with("_after") || !value.is_number()) continue;
    const std::string name = key.substr(0, key.size() - 6);
    char text[96];
    std::snprintf(text, sizeof(text), ", held-out %s %.4g -> %.4g",
                  name.starts_with("eval_") ? name.c_str() + 5 : name.c_str(), summary.value(name + "_before", 0.0),
                  value.get<double>());
    line += text;
  }
  std::printf("%s\noutputs in %s\nreport.html and metrics.jsonl in %s\n", line.c_str(), job.config.save_dir.c_str(),
              folder.c_str());
  if (summary.value("state", "") == "stopped") std::printf("go on with it: the same command with --from_resume 1\n");
  std::fflush(stdout);
}

}  // namespace

nlohmann::ordered_json job_json(const JobRequest& job) {
  OrderedJson out = std::visit(
      [&](const auto& own) {
        OrderedJson object{{"job", own.kName}};
        for_each_field(job.config,
                       [&](std::string_view name, const auto& value) { object[std::string(name)] = value; });
        for_each_field(own, [&](std::string_view name, const auto& value) { object[std::string(name)] = value; });
        return object;
      },
      job.kind);
  return out;
}

int play_job(const JobRequest& job, bool plain, const RoleCalls& calls) {
  limit_spinning(Spin::kAlone);
  JobRank rank = job_rank();
  const fs::path folder = job_folder(job, calls);
  if (rank.rank > 0) {  // rank 0 shows and writes
    catch_stop_signals();
    calls.job(job, rank, folder, {.stop_requests = &stop_requests()});
    return 0;
  }
  fs::create_directories(folder / "logs");
  const RunLock lock(folder);
  const auto started = std::chrono::steady_clock::now();
  const auto close = [&](const std::string& state) {
    const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - started;
    close_summary(folder, state, wall.count());
  };
  int code = 0;
  std::atomic<bool> training = false;  // until then the folder is an earlier job's
  {
    RunDisplay display(as_topology(job), folder, plain);
    const std::jthread watch = watch_stop_signals(display, training, [&] {
      if (training) close("stopped");
    });
    std::optional<OtherRanks> others;
    if (rank.size == 1 && job.config.nproc > 1) {
      const int size = static_cast<int>(job.config.nproc);
      rank = {.rank = 0, .size = size, .on_host = size, .address = "127.0.0.1", .port = 20000 + getpid() % 40000};
      others.emplace(rank.size, rank.port, folder / "logs");
    }
    RunStatus last;
    try {
      calls.job(job, rank, folder,
                {.on_training =
                     [&](int64_t done) {
                       training = true;
                       write_settings(job, folder);
                       if (done == 0) fs::remove(folder / "summary.json");
                     },
                 .on_status = [&](const RunStatus& status) { display.status(last = status); },
                 .on_event = [&](const std::string& line) { display.event(line); },
                 .on_preparing = [&](const std::string& what, double share) { display.preparing(what, share); },
                 .stop_requests = &stop_requests()});
    } catch (const LostRank& error) {
      code = 1;
      display.event(std::string("troupe: ") + error.what());
      if (const std::string why = others ? others->failure() : ""; !why.empty()) display.event("troupe: " + why);
    } catch (const std::exception& error) {
      code = 1;
      display.event(std::string("troupe: ") + error.what());
    }
    last.state = state_after(code);
    for (RoleStatus& node : last.nodes) node.phase = last.state, node.detail = "";
    if (!last.nodes.empty()) display.status(last);
    if (training) display.finish();
  }
  if (training) close(state_after(code));
  if (code == 0) print_closing(folder, job);
  return exit_code_after(code);
}

}  // namespace troupe
