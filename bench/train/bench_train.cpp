// The learner's step, one JSON line per run:
//   bench_train [--minimind WIDTH/LAYERS[/moe] | --model FOLDER] [--dtype f32|bf16] [--task lm|sft|answers|group]
//               [--sequences N] [--steps N] [--micro TOKENS] [--threads N] [--checkpointing] [--lora RANK]
// --minimind: random weights of this shape (512/8). lm: 8 sequences (--sequences) of 512 tokens, cross-entropy on all
// of them. sft: the same of 64 to 512 tokens, other lengths in every step. answers: 32 sequences of 45 prompt and 48
// answer tokens, loss on the answers; group: the same, with four answers to each of eight prompts. A step is forward,
// backward, clipping and AdamW. Medians of the steps after two warm-up steps; cpu: of all threads together.
#include <ATen/Parallel.h>
#include <sys/resource.h>

#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>

#include "bench/median.hpp"
#include "core/io/model_folder.hpp"
#include "core/models/initial_weights.hpp"
#include "core/models/minimind.hpp"
#include "core/train/engine.hpp"

namespace {

using namespace troupe;

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Options {
  std::string model, minimind = "512/8", dtype = "bf16", task = "lm";
  int steps = 5, threads = 2;
  int64_t sequences = 0;
  int64_t micro = 1024, lora = 0;
  bool checkpointing = false;
};

Options parse(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    const auto value = [&] {
      if (i + 1 >= argc) throw std::invalid_argument(flag + " needs a value");
      return std::string(argv[++i]);
    };
    if (flag == "--model")
      o.model = value();
    else if (flag == "--minimind")
      o.minimind = value();
    else if (flag == "--sequences")
      o.sequences = std::stoll(value());
    else if (flag == "--dtype")
      o.dtype = value();
    else if (flag == "--task")
      o.task = value();
    else if (flag == "--steps")
      o.steps = std::stoi(value());
    else if (flag == "--threads")
      o.threads = std::stoi(value());
    else if (flag == "--micro")
      o.micro = std::stoll(value());
    else if (flag == "--lora")
      o.lora = std::stoll(value());
    else if (flag == "--checkpointing")
      o.checkpointing = true;
    else
      throw std::invalid_argument("unknown flag " + flag);
  }
  const bool task = o.task == "lm" || o.task == "sft" || o.task == "answers" || o.task == "group";
  if ((o.dtype != "f32" && o.dtype != "bf16") || !task || o.steps < 1 || o.sequences < 0)
    throw std::invalid_argument(
        "expected --dtype f32|bf16, --task lm|sft|answers|group, --steps >= 1, --sequences >= 1");
  return o;
}

// "640/8/moe".
LoadedModel random_minimind(const std::string& shape) {
  const size_t first = shape.find('/'), second = shape.find('/', first + 1);
  const bool moe = second != std::string::npos;
  if (first == std::string::npos || (moe && shape.substr(second) != "/moe"))
    throw std::invalid_argument("--minimind " + shape + ": expected WIDTH/LAYERS or WIDTH/LAYERS/moe");
  LoadedModel model;
  model.config = minimind_config(std::stoll(shape.substr(0, first)), std::stoll(shape.substr(first + 1)), moe);
  model.weights = initial_weights(model.config, 0);
  return model;
}

// The machine's own rate for a product of this size, GFLOP/s: the best of several.
double matmul_rate(at::ScalarType type) {
  const int64_t n = 2048;
  const at::Tensor a = at::randn({n, n}).to(type), b = at::randn({n, n}).to(type);
  at::Tensor c = at::empty({n, n}, type);
  double best = 0;
  for (int i = 0; i < 12; ++i) {
    const double start = now_seconds();
    at::mm_out(c, a, b);
    best = std::max(best, 2.0 * n * n * n / (now_seconds() - start) / 1e9);
  }
  return best;
}

// Multiplications and additions of forward and backward: 6 per weight and token (the head only where it is used), and
// causal attention's 12 * layers * width per pair of positions, halved.
double flops(const DecoderConfig& c, const PackedBatch& batch) {
  const double width = static_cast<double>(c.num_heads * c.head_dim),
               kv = static_cast<double>(c.num_kv_heads * c.head_dim), hidden = static_cast<double>(c.hidden_size),
               inner = static_cast<double>(c.intermediate_size);
  const double experts = static_cast<double>(c.moe.experts > 0 ? c.moe.per_token + c.moe.shared_experts : 1);
  const double layer = hidden * (2 * width + 2 * kv) + experts * 3 * hidden * inner;
  double total = 6.0 * static_cast<double>(c.num_layers) * layer * static_cast<double>(batch.tokens.size(0)) +
                 6.0 * static_cast<double>(c.vocab_size) * hidden * static_cast<double>(batch.response_tokens());
  for (size_t i = 0; i < batch.prompt_lengths.size(); ++i) {
    const double length = static_cast<double>(batch.prompt_lengths[i] + batch.response_lengths[i]);
    total += 6.0 * static_cast<double>(c.num_layers) * width * length * length;
  }
  return total;
}

PackedBatch make_batch(const Options& o, const DecoderConfig& config) {
  const bool answers = o.task == "answers" || o.task == "group";
  const int64_t count = o.sequences > 0 ? o.sequences : answers ? 32 : 8;
  const int64_t prompt = answers ? 45 : 1, answer = answers ? 48 : 511;
  PackedBatch batch;
  batch.prompt_lengths.assign(static_cast<size_t>(count), prompt);
  batch.response_lengths.assign(static_cast<size_t>(count), answer);
  if (o.task == "sft")
    for (int64_t& length : batch.response_lengths) length = at::randint(63, 512, {1}, at::kLong).item<int64_t>();
  batch.tokens = at::randint(3, config.vocab_size, {count * prompt + batch.response_tokens()}, at::kLong);
  if (o.task == "group") {
    const at::Tensor rows = batch.tokens.view({count, prompt + answer});
    for (int64_t i = 0; i < count; ++i) rows[i].slice(0, 0, prompt).copy_(rows[i / 4 * 4].slice(0, 0, prompt));
  }
  return batch;
}

// Of all threads, seconds.
double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

int run(const Options& o) {
  at::set_num_threads(o.threads);
  at::manual_seed(1);
  const at::ScalarType type = o.dtype == "f32" ? at::kFloat : at::kBFloat16;
  TrainConfig train;
  train.compute = type;
  train.adamw.learning_rate = 1e-4;
  train.adamw.weight_decay = 0.01;
  train.micro_batch_tokens = o.micro;
  train.gradient_checkpointing = o.checkpointing;
  if (o.lora > 0) train.lora = LoraConfig{.rank = o.lora};
  std::optional<TrainEngine> engine;
  {
    const LoadedModel model = o.model.empty() ? random_minimind(o.minimind) : load_model(o.model, at::kBFloat16);
    engine.emplace(model.config, model.weights, train);
  }
  const double rate_before = matmul_rate(type);
  PackedBatch batch;
  // As the supervised jobs: the mean over the scored tokens, and experts' auxiliary loss by the part's sequences.
  const LossFn loss = [&](const MicroBatch& part, const TokenOutputs& out) {
    const at::Tensor language = -out.logprobs.sum() / static_cast<double>(batch.response_tokens());
    if (!out.aux.defined()) return language;
    return language + out.aux * (static_cast<double>(part.sequences.size()) / static_cast<double>(batch.sequences()));
  };
  std::vector<double> steps, updates, cpu, rates;
  double last_loss = 0;
  for (int i = 0; i < o.steps + 2; ++i) {
    if (i == 0 || o.task == "sft") batch = make_batch(o, engine->model().config());
    const double start = now_seconds(), cpu_start = cpu_seconds();
    last_loss = engine->accumulate(batch, 1.0, loss).loss;
    const double accumulated = now_seconds();
    engine->apply();
    if (i < 2) continue;
    const double end = now_seconds();
    steps.push_back(end - start);
    updates.push_back(end - accumulated);
    cpu.push_back(cpu_seconds() - cpu_start);
    rates.push_back(static_cast<double>(batch.tokens.size(0)) / (end - start));
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const double seconds = bench::median(steps), work = flops(engine->model().config(), batch);
  std::cout << nlohmann::json{{"bench", "train"},
                              {"model", o.model.empty() ? "minimind " + o.minimind : o.model},
                              {"dtype", o.dtype},
                              {"task", o.task},
                              {"micro_batch_tokens", o.micro},
                              {"checkpointing", o.checkpointing},
                              {"lora_rank", o.lora},
                              {"threads", o.threads},
                              {"seconds_per_step", seconds},
                              {"seconds_min", *std::min_element(steps.begin(), steps.end())},
                              {"update_seconds", bench::median(updates)},
                              {"cpu_seconds_per_step", bench::median(cpu)},
                              {"tokens_per_second", bench::median(rates)},
                              {"gflops", work / seconds / 1e9},
                              {"matmul_gflops", {rate_before, matmul_rate(type)}},
                              {"peak_rss_mib", usage.ru_maxrss / 1024},
                              {"loss", last_loss}}
                   .dump()
            << "\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) try { return run(parse(argc, argv)); } catch (const std::exception& e) {
  std::cerr << "bench_train: " << e.what() << "\n";
  return 1;
}
