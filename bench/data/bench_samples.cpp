// How fast lines become samples, one thread, no model: lines are read, tokenised and masked. One line of JSON.
//   bench_samples TOKENIZER_FOLDER FILE.jsonl pretrain|conversation [MAX_LENGTH]
// Seconds are the thread's own, the best of three passes over the file.
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <string>

#include "core/data/jsonl.hpp"
#include "core/data/training_samples.hpp"

int main(int argc, char** argv) {
  using namespace troupe;
  if (argc < 4) {
    std::fprintf(stderr, "usage: bench_samples TOKENIZER_FOLDER FILE.jsonl pretrain|conversation [MAX_LENGTH]\n");
    return 2;
  }
  const bool text = std::string(argv[3]) == "pretrain";
  const SampleMaker maker(Tokenizer::from_folder(argv[1]), {.max_length = argc > 4 ? std::stoll(argv[4]) : 512});
  const auto seconds = [] {
    timespec t{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
  };
  double best = 1e9;
  int64_t tokens = 0, samples = 0;
  for (int pass = 0; pass < 3; ++pass) {
    const double begin = seconds();
    const JsonLines lines(argv[2]);
    tokens = 0;
    samples = lines.size();
    for (int64_t i = 0; i < samples; ++i) {
      const TrainingSample sample = text ? maker.pretrain(lines.line(i)) : maker.conversation(lines.line(i));
      tokens += static_cast<int64_t>(sample.tokens.size());
    }
    best = std::min(best, seconds() - begin);
  }
  std::printf("{\"samples\":%lld,\"tokens\":%lld,\"thread_seconds\":%.4f,\"tokens_per_s\":%.0f}\n",
              static_cast<long long>(samples), static_cast<long long>(tokens), best,
              static_cast<double>(tokens) / best);
}
