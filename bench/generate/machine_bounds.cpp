#include "bench/generate/machine_bounds.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <thread>

namespace troupe::bench {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

uint64_t read_all(const uint64_t* data, size_t n) {
  uint64_t sums[8] = {};
  for (size_t i = 0; i < n; i += 8)
    for (size_t j = 0; j < 8; ++j) sums[j] += data[i + j];
  uint64_t sum = 0;
  for (uint64_t s : sums) sum += s;
  return sum;
}

}  // namespace

double memory_bytes_per_s(int threads) {
  const std::vector<uint64_t> data(size_t{64} << 20, 1);
  double best = 0;
  for (int pass = 0; pass < 8; ++pass) {
    std::vector<uint64_t> sums(static_cast<size_t>(threads));
    const auto start = std::chrono::steady_clock::now();
    std::vector<std::thread> readers;
    for (int t = 0; t < threads; ++t) {
      const size_t part = data.size() / static_cast<size_t>(threads) / 8 * 8;
      readers.emplace_back(
          [&, t, part] { sums[static_cast<size_t>(t)] = read_all(data.data() + static_cast<size_t>(t) * part, part); });
    }
    for (std::thread& r : readers) r.join();
    best = std::max(best, static_cast<double>(data.size() * 8) / seconds_since(start));
    for (uint64_t sum : sums)
      if (sum == 0) std::abort();  // the sums are used, so the reads happen
  }
  return best;
}

double matmul_flops_per_s(int threads, c10::ScalarType dtype) {
  at::set_num_threads(threads);
  constexpr int64_t kSize = 1536;
  const at::Tensor a = at::randn({kSize, kSize}).to(dtype), b = at::randn({kSize, kSize}).to(dtype);
  double best = 0;
  for (int pass = 0; pass < 12; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    const at::Tensor c = at::matmul(a, b);
    best = std::max(best, 2.0 * kSize * kSize * kSize / seconds_since(start));
  }
  return best;
}

std::string machine_name() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);)
    if (line.starts_with("model name")) return line.substr(line.find(": ") + 2);
  return "unknown";
}

double load_average() {
  double load = 0;
  return getloadavg(&load, 1) == 1 ? load : -1;
}

}  // namespace troupe::bench
