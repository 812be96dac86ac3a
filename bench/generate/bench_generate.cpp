// Tokens per second of generation, beside what the machine's memory and matrix products would allow in the same run.
// One JSON line per measurement. Fixed work: EOS ignored, multinomial sampling at temperature 1.
//
//   bench_generate MODEL [--dtype bf16|f32] [--batch 1,8,32] [--prompt 32] [--new 128] [--threads N] [--runs 5]
//                  [--kernels NAME|plain]
//
// share_of_bound: the larger of bytes / memory rate and products / matmul rate, over the measured time of a step. The
// bytes of a step are the weights once and the keys and values of every answer.
#include <ATen/ATen.h>

#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "bench/generate/machine_bounds.hpp"
#include "bench/median.hpp"
#include "core/generate/engine.hpp"
#include "core/io/model_folder.hpp"

namespace troupe::bench {
namespace {

using Clock = std::chrono::steady_clock;

struct Settings {
  std::string model, dtype = "bf16", kernels = "auto";
  std::vector<int64_t> batches{1, 8, 32};
  int64_t prompt = 32, new_tokens = 128;
  int threads = static_cast<int>(std::thread::hardware_concurrency()), runs = 5;
};

Settings parse(int argc, char** argv) {
  Settings s;
  if (argc < 2 || argc % 2 != 0) throw std::invalid_argument("expected MODEL and pairs of option and value");
  s.model = argv[1];
  for (int i = 2; i < argc; i += 2) {
    const std::string option = argv[i], value = argv[i + 1];
    if (option == "--dtype")
      s.dtype = value;
    else if (option == "--kernels")
      s.kernels = value;
    else if (option == "--prompt")
      s.prompt = std::stoll(value);
    else if (option == "--new")
      s.new_tokens = std::stoll(value);
    else if (option == "--threads")
      s.threads = std::stoi(value);
    else if (option == "--runs")
      s.runs = std::stoi(value);
    else if (option == "--batch") {
      s.batches.clear();
      std::istringstream list(value);
      for (std::string item; std::getline(list, item, ',');) s.batches.push_back(std::stoll(item));
    } else
      throw std::invalid_argument("unknown option " + option);
  }
  if (s.dtype != "bf16" && s.dtype != "f32") throw std::invalid_argument("--dtype is bf16 or f32");
  return s;
}

double seconds(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

struct Times {
  double first_s;  // all prompts and the first token of each answer
  double all_s;
};

Times time_batch(Engine& engine, const Settings& s, int64_t batch, int64_t vocab_size) {
  for (int64_t b = 0; b < batch; ++b) {
    GenerateRequest r;
    r.id = r.draw = static_cast<uint64_t>(b);
    for (int64_t i = 0; i < s.prompt; ++i)
      r.prompt.push_back(static_cast<int32_t>((100 + b * 7919 + i * 104729) % vocab_size));
    r.sampling.max_new_tokens = s.new_tokens;
    r.sampling.ignore_eos = true;
    engine.submit(r);
  }
  const auto start = Clock::now();
  const uint64_t before = engine.stats().generated_tokens;
  while (engine.stats().generated_tokens < before + static_cast<uint64_t>(batch)) engine.step();
  const auto first = Clock::now();
  while (engine.step()) {
  }
  const auto end = Clock::now();
  while (engine.take_finished()) {
  }
  return {seconds(start, first), seconds(start, end)};
}

struct Model {
  DecoderConfig config;
  double weight_bytes = 0, products = 0;  // of one token
  double kv_bytes = 0;                    // of one token held
};

Model describe(const LoadedModel& loaded, double element) {
  const DecoderConfig& c = loaded.config;
  Model m{.config = c};
  for (const auto& [name, w] : loaded.weights)
    if (w.dim() == 2 && (name != "model.embed_tokens.weight" || c.tie_embeddings))
      m.products += static_cast<double>(w.numel());
  m.weight_bytes = m.products * element;
  m.kv_bytes = static_cast<double>(2 * c.num_layers * c.num_kv_heads * c.head_dim) * element;
  return m;
}

void measure(Engine& engine, const Settings& s, const Model& model, int64_t batch, nlohmann::json line) {
  std::vector<double> decode, whole, first;
  time_batch(engine, s, batch, model.config.vocab_size);
  for (int run = 0; run < s.runs; ++run) {
    const Times t = time_batch(engine, s, batch, model.config.vocab_size);
    decode.push_back(static_cast<double>(batch * (s.new_tokens - 1)) / (t.all_s - t.first_s));
    whole.push_back(static_cast<double>(batch * s.new_tokens) / t.all_s);
    first.push_back(t.first_s);
  }
  const double memory = line["memory_bytes_s"], matmul = line["matmul_flops_s"];
  const double held = static_cast<double>(s.prompt) + static_cast<double>(s.new_tokens) / 2;
  const double bytes = model.weight_bytes + model.kv_bytes * held * static_cast<double>(batch);
  const double flops = 2 * model.products * static_cast<double>(batch);
  const double bound_s = std::max(bytes / memory, flops / matmul);
  const double best = *std::ranges::max_element(decode), typical = median(decode);
  line.update({{"batch", batch},
               {"decode_tok_s", typical},
               {"decode_tok_s_best", best},
               {"e2e_tok_s", median(whole)},
               {"e2e_tok_s_best", *std::ranges::max_element(whole)},
               {"first_token_s", median(first)},
               {"prompt_tok_s", static_cast<double>(batch * s.prompt) / *std::ranges::min_element(first)},
               {"bytes_s", bytes * best / static_cast<double>(batch)},
               {"flops_s", flops * best / static_cast<double>(batch)},
               {"bound_tok_s", static_cast<double>(batch) / bound_s},
               {"share_of_bound", typical * bound_s / static_cast<double>(batch)},
               {"share_of_bound_best", best * bound_s / static_cast<double>(batch)},
               {"load1", load_average()}});
  std::printf("%s\n", line.dump().c_str());
  std::fflush(stdout);
}

void run(const Settings& s) {
  const auto dtype = s.dtype == "bf16" ? at::kBFloat16 : at::kFloat;
  const LoadedModel loaded = load_model(s.model, dtype);
  EngineOptions options;
  options.dtype = dtype;
  options.threads = s.threads;
  options.plain_kernels = s.kernels == "plain";
  if (!options.plain_kernels) options.kernels = s.kernels;
  options.max_batch = *std::ranges::max_element(s.batches);
  options.max_tokens = options.max_batch * (s.prompt + s.new_tokens + 16) + 1024;
  Engine engine(loaded.config, loaded.weights, {}, options);
  nlohmann::json line{{"bench", "generate"},
                      {"machine", machine_name()},
                      {"threads", s.threads},
                      {"model", std::filesystem::path(s.model).filename().string()},
                      {"dtype", s.dtype},
                      {"kernels", engine.kernel_name()},
                      {"prompt", s.prompt},
                      {"new_tokens", s.new_tokens},
                      {"memory_bytes_s", memory_bytes_per_s(s.threads)},
                      {"matmul_flops_s", matmul_flops_per_s(s.threads, dtype)}};
  double pack_s = 1e9;  // the first two touch new memory
  for (int i = 0; i < 2 + s.runs; ++i) {
    const auto start = Clock::now();
    engine.swap_weights(loaded.weights, 1);
    pack_s = std::min(pack_s, seconds(start, Clock::now()));
  }
  line["pack_s_best"] = pack_s;
  const Model model = describe(loaded, s.dtype == "bf16" ? 2 : 4);
  for (int64_t batch : s.batches) measure(engine, s, model, batch, line);
}

}  // namespace
}  // namespace troupe::bench

int main(int argc, char** argv) {
  try {
    troupe::bench::run(troupe::bench::parse(argc, argv));
  } catch (const std::exception& e) {
    std::fprintf(stderr, "bench_generate: %s\n", e.what());
    return 1;
  }
}
