#include "core/models/initial_weights.hpp"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <cmath>

#include "core/models/parameter_shapes.hpp"

namespace troupe {

StateDict initial_weights(const DecoderConfig& config, uint64_t seed) {
  const auto shapes = parameter_shapes(config);
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  StateDict weights;
  // In the order of the names; one thread draws, so the numbers depend on nothing else.
  for (const auto& [name, shape] : shapes) {
    const size_t dot = name.rfind('.');
    const bool bias = name.substr(dot) == ".bias";
    const auto& matrix = bias ? shapes.at(name.substr(0, dot) + ".weight") : shape;
    if (matrix.size() == 1) {  // a norm
      weights[name] = at::ones(shape, at::kFloat);
      continue;
    }
    const double bound = 1.0 / std::sqrt(static_cast<double>(matrix[1]));
    weights[name] = at::empty(shape, at::kFloat).uniform_(-bound, bound, generator);
  }
  return weights;
}

}  // namespace troupe
