// The matrix products of training, ours beside the library's, one thread: a line of JSON for each shape and dtype,
// GFLOP/s of the thread's own time, the best of several rounds in turn.
//   bench_products [ROUNDS]
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <time.h>

#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>

#include "core/models/matrix_product.hpp"

namespace {

double thread_seconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

struct Shape {
  const char* what;
  int64_t m, n, k;  // tokens, outputs, inputs
};

}  // namespace

int main(int argc, char** argv) {
  using namespace troupe;
  const int rounds = argc > 1 ? std::stoi(argv[1]) : 5;
  at::set_num_threads(1);
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16})
    for (const auto& [what, m, n, k] : {Shape{"26M qkv", 2048, 768, 512},
                                        {"26M o", 2048, 512, 512},
                                        {"26M gate_up", 2048, 2816, 512},
                                        {"26M down", 2048, 512, 1408},
                                        {"26M head", 2048, 6400, 512},
                                        {"145M expert gate_up", 1024, 3456, 640},
                                        {"145M expert down", 1024, 640, 1728}}) {
      const at::Tensor x = at::randn({m, k}).to(type), w = at::randn({n, k}).to(type), dy = at::randn({m, n}).to(type);
      at::Tensor y = at::empty({m, n}, type), dx = at::empty({m, k}, type), dw = at::zeros({n, k});
      at::Tensor logits = at::empty({m, n});
      at::Tensor their_y = y.clone(), their_dx = dx.clone(), their_dw = at::zeros({n, k}, type);
      const std::vector<std::pair<const char*, std::function<void()>>> works{
          {"forward", [&] { product_of_rows(x, w, y); }},
          {"forward_library", [&] { at::mm_out(their_y, x, w.t()); }},
          {"logits", [&] { wide_product(x, w, logits); }},
          {"backward_input", [&] { product(dy, w, dx); }},
          {"backward_input_library", [&] { at::mm_out(their_dx, dy, w); }},
          {"backward_weight", [&] { add_product(dw, dy, x); }},
          {"backward_weight_library", [&] { at::mm_out(their_dw, dy.t(), x); }}};
      std::vector<double> best(works.size(), 1e9);
      for (int round = 0; round <= rounds; ++round)
        for (size_t i = 0; i < works.size(); ++i) {
          const double begin = thread_seconds();
          works[i].second();
          if (round > 0) best[i] = std::min(best[i], thread_seconds() - begin);
        }
      nlohmann::ordered_json line{{"shape", what},
                                  {"dtype", type == at::kFloat ? "f32" : "bf16"},
                                  {"tokens", m},
                                  {"outputs", n},
                                  {"inputs", k}};
      for (size_t i = 0; i < works.size(); ++i)
        line[works[i].first] = std::round(2e-9 * static_cast<double>(m * n * k) / best[i]);
      std::cout << line.dump() << std::endl;
    }
}
