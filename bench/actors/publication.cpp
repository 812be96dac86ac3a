// A weight publication by shared memory to two reading processes, beside memcpy in the same run: one JSON line. Into a
// region that RegionSupply had ready: copy the weights in, seal, publish, until both readers have mapped it. What the
// supply's thread spends on making a region, and a reader on reading every byte, stand beside it.
//   bench_publication [megabytes] [rounds]
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "actors/shared_memory.hpp"
#include "bench/median.hpp"

namespace {

using namespace troupe;
using namespace std::chrono_literals;

double seconds_of(const std::function<void()>& act) {
  const auto begin = std::chrono::steady_clock::now();
  act();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

uint64_t sum_of(std::span<const std::byte> bytes) {
  std::vector<uint64_t> lanes(8);
  const std::size_t words = bytes.size() / 8;
  const auto* data = reinterpret_cast<const uint64_t*>(bytes.data());
  for (std::size_t i = 0; i + 8 <= words; i += 8)
    for (std::size_t lane = 0; lane < 8; ++lane) lanes[lane] += data[i + lane];
  return std::accumulate(lanes.begin(), lanes.end(), uint64_t{0});
}

struct Times {
  double create = 0, publication = 0, read = 0;
};

// Numbers between the writer and the readers.
struct Pipe {
  Pipe() {
    if (pipe(ends) != 0) std::exit(1);
  }
  void say(double value) const {
    if (write(ends[1], &value, sizeof value) != sizeof value) _exit(1);
  }
  double hear() const {
    double value = 0;
    if (read(ends[0], &value, sizeof value) != sizeof value) std::exit(1);
    return value;
  }
  int ends[2];
};

// Fetches every version when told, says so, reads it, and says how long that took.
void read_versions(const std::string& path, int rounds, const Pipe& told, const Pipe& mapped, const Pipe& seconds) {
  for (int round = 0; round < rounds; ++round) {
    told.hear();  // as TakeWeights tells an actor
    const auto region = fetch_region(path, std::to_string(round), 60s);
    mapped.say(0);
    uint64_t sum = 0;
    const double time = seconds_of([&] { sum = sum_of(region->bytes()); });
    seconds.say(sum == 0 ? -1 : time);
  }
}

Times measure(const std::vector<std::byte>& weights, RegionServer& server, int rounds) {
  const Pipe told, mapped, seconds;
  for (int reader = 0; reader < 2; ++reader) {
    if (fork() != 0) continue;
    read_versions(server.path(), rounds, told, mapped, seconds);
    _exit(0);
  }
  std::vector<double> creates, publications, reads;
  for (int round = 0; round < rounds; ++round) {
    std::shared_ptr<SharedRegion> region;
    creates.push_back(seconds_of([&] { region = SharedRegion::create(weights.size()); }));
    publications.push_back(seconds_of([&] {
      std::memcpy(region->writable().data(), weights.data(), weights.size());
      server.publish(std::to_string(round), region);
      for (int reader = 0; reader < 2; ++reader) told.say(round);
      for (int reader = 0; reader < 2; ++reader) mapped.hear();
    }));
    for (int reader = 0; reader < 2; ++reader) reads.push_back(seconds.hear());
    server.withdraw(std::to_string(round));
  }
  while (wait(nullptr) > 0) {
  }
  return {bench::median(creates), bench::median(publications), bench::median(reads)};
}

}  // namespace

int main(int argc, char** argv) {
  const std::size_t bytes = static_cast<std::size_t>(argc > 1 ? std::atoi(argv[1]) : 270) * 1'000'000;
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 7;
  std::vector<std::byte> weights(bytes, std::byte{1});
  std::vector<double> copies;
  for (int i = 0; i < rounds; ++i) {
    std::vector<std::byte> target(bytes, std::byte{0});  // touched: memcpy alone is timed
    copies.push_back(seconds_of([&] { std::memcpy(target.data(), weights.data(), bytes); }));
  }
  std::string folder = (std::filesystem::temp_directory_path() / "troupe-bench-XXXXXX").string();
  if (!mkdtemp(folder.data())) return 1;
  Times times;
  {
    RegionServer server(folder + "/regions");
    times = measure(weights, server, rounds);
  }
  std::filesystem::remove_all(folder);
  const double gb = static_cast<double>(bytes) / 1e9, copy = bench::median(copies);
  std::printf(
      "{\"bench\": \"publication\", \"bytes\": %zu, \"readers\": 2, \"memcpy_gb_per_s\": %.2f, "
      "\"publication_ms\": %.1f, \"publication_gb_per_s\": %.2f, \"publication_of_memcpy\": %.2f, "
      "\"create_in_advance_ms\": %.1f, \"read_by_each_ms\": %.1f}\n",
      bytes, gb / copy, times.publication * 1e3, gb / times.publication, copy / times.publication, times.create * 1e3,
      times.read * 1e3);
}
