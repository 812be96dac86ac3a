#include "core/models/merge_adapter.hpp"

#include <ATen/ATen.h>

#include <optional>
#include <stdexcept>
#include <string_view>

namespace troupe {
namespace {

struct Form {
  std::string_view prefix, a, b;
  bool transposed;  // A is [in, r], B is [r, out]
};
constexpr Form kForms[] = {{"", ".lora.A.weight", ".lora.B.weight", false},
                           {"", ".lora_A", ".lora_B", true},
                           {"base_model.model.", ".lora_A.weight", ".lora_B.weight", false}};

struct Place {
  const Form* form;
  std::string path;
  bool is_a;
};

std::optional<Place> place_of(std::string_view name) {
  if (name.starts_with("module.")) name.remove_prefix(std::string_view("module.").size());
  for (const Form& form : kForms) {
    if (!name.starts_with(form.prefix)) continue;
    for (const bool is_a : {true, false}) {
      const std::string_view ending = is_a ? form.a : form.b;
      if (!name.ends_with(ending)) continue;
      const size_t length = name.size() - form.prefix.size() - ending.size();
      return Place{&form, std::string(name.substr(form.prefix.size(), length)), is_a};
    }
  }
  return std::nullopt;
}

struct Pair {
  const Form* form = nullptr;
  at::Tensor a, b;
};

void merge(at::Tensor& weight, const Pair& pair, double scale, const std::string& where) {
  const auto fits = [&](const at::Tensor& a, const at::Tensor& b) {
    return a.dim() == 2 && b.dim() == 2 && a.size(0) == b.size(1) && weight.dim() == 2 && a.size(1) == weight.size(1) &&
           b.size(0) == weight.size(0);
  };
  const at::Tensor a = pair.form->transposed ? pair.a.t() : pair.a;
  const at::Tensor b = pair.form->transposed ? pair.b.t() : pair.b;
  if (!fits(a, b))
    throw std::runtime_error(where + ": matrices " + c10::str(pair.a.sizes()) + " and " + c10::str(pair.b.sizes()) +
                             " do not fit a weight of " + c10::str(weight.sizes()));
  weight = at::addmm(weight.to(at::kFloat), b.to(at::kFloat), a.to(at::kFloat), 1, scale).to(weight.scalar_type());
}

}  // namespace

void merge_adapter(StateDict& model, const StateDict& adapter, double scale, const std::string& origin) {
  std::map<std::string, Pair> pairs;
  for (const auto& [name, tensor] : adapter) {
    const auto place = place_of(name);
    if (!place || !model.contains(place->path + ".weight"))
      throw std::runtime_error(origin + ": \"" + name + "\" adapts nothing in this model");
    Pair& pair = pairs[place->path];
    pair.form = place->form;
    (place->is_a ? pair.a : pair.b) = tensor;
  }
  if (pairs.empty()) throw std::runtime_error(origin + ": holds no adapter");
  for (const auto& [path, pair] : pairs) {
    const std::string where = origin + ": \"" + path + "\"";
    if (!pair.a.defined() || !pair.b.defined())
      throw std::runtime_error(where + ": one of the two matrices is missing");
    merge(model.at(path + ".weight"), pair, scale, where);
  }
}

}  // namespace troupe
