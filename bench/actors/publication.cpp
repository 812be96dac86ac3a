// A weight publication of 270 MB by shared memory to two reading processes, beside memcpy in the same run: one JSON
// line. Publication time: create the region, copy the weights in, seal, publish; until both readers have mapped it and
// read every byte (a sum, as their checksum would). Hand-over time: the same without the copy and the reading.
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
#include <thread>
#include <vector>

#include "actors/shared_memory.hpp"

namespace {

using namespace troupe;
using namespace std::chrono_literals;

double seconds_of(const std::function<void()>& act) {
  const auto begin = std::chrono::steady_clock::now();
  act();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

uint64_t sum_of(std::span<const std::byte> bytes) {
  std::vector<uint64_t> lanes(8);
  const std::size_t words = bytes.size() / 8;
  const auto* data = reinterpret_cast<const uint64_t*>(bytes.data());
  for (std::size_t i = 0; i + 8 <= words; i += 8)
    for (std::size_t lane = 0; lane < 8; ++lane) lanes[lane] += data[i + lane];
  return std::accumulate(lanes.begin(), lanes.end(), uint64_t{0});
}

std::string version_name(bool touch, int round) {
  std::string name(touch ? "v" : "h");
  name += std::to_string(round);
  return name;
}

// Fetches every version and says so through the pipe: once mapped, once read.
void read_versions(const std::string& path, int rounds, bool touch, int said) {
  for (int round = 0; round < rounds; ++round) {
    const auto region = fetch_region(path, version_name(touch, round), 60s);
    const uint64_t word = touch ? sum_of(region->bytes()) : 1;
    if (write(said, &word, sizeof word) != sizeof word) _exit(1);
  }
}

double measure(const std::vector<std::byte>& weights, RegionServer& server, int rounds, bool touch) {
  int said[2];
  if (pipe(said) != 0) std::exit(1);
  for (int reader = 0; reader < 2; ++reader) {
    if (fork() != 0) continue;
    read_versions(server.path(), rounds, touch, said[1]);
    _exit(0);
  }
  std::vector<double> times;
  for (int round = 0; round < rounds; ++round) {
    auto region = SharedRegion::create(weights.size());
    if (!touch) std::memset(region->writable().data(), 1, weights.size());
    times.push_back(seconds_of([&] {
      if (touch) {
        region = SharedRegion::create(weights.size());
        std::memcpy(region->writable().data(), weights.data(), weights.size());
      }
      server.publish(version_name(touch, round), region);
      for (int reader = 0; reader < 2; ++reader) {
        uint64_t word = 0;
        if (read(said[0], &word, sizeof word) != sizeof word) std::exit(1);
      }
    }));
    server.withdraw(version_name(touch, round));
  }
  while (wait(nullptr) > 0) {
  }
  return median(times);
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
  double publication = 0, hand_over = 0;
  {
    RegionServer server(folder + "/regions");
    publication = measure(weights, server, rounds, true);
    hand_over = measure(weights, server, rounds, false);
  }
  std::filesystem::remove_all(folder);
  const double gb = static_cast<double>(bytes) / 1e9, copy = median(copies);
  std::printf(
      "{\"bench\": \"publication\", \"bytes\": %zu, \"readers\": 2, \"memcpy_gb_per_s\": %.2f, "
      "\"hand_over_ms\": %.1f, \"hand_over_gb_per_s\": %.2f, \"hand_over_of_memcpy\": %.2f, "
      "\"copy_publish_read_ms\": %.1f, \"copy_publish_read_gb_per_s\": %.2f, \"copy_publish_read_of_memcpy\": %.2f}\n",
      bytes, gb / copy, hand_over * 1e3, gb / hand_over, copy / hand_over, publication * 1e3, gb / publication,
      copy / publication);
}
