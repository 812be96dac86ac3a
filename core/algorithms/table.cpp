#include "core/algorithms/table.hpp"

#include <array>
#include <stdexcept>

#include "core/algorithms/grpo.hpp"
#include "core/config.hpp"

namespace troupe {
namespace {

Algorithm make_grpo(const Json& settings, const JsonPath& where) {
  const auto config = from_json<GrpoConfig>(settings, where);
  check(config, where);
  Algorithm a;
  a.name = "grpo";
  a.needs_reference = config.kl_beta != 0;
  a.scale_needs_entropy = config.top_entropy_quantile < 1;
  a.entropy_in_loss = config.entropy_coef != 0;
  a.needs_entropy = a.scale_needs_entropy || a.entropy_in_loss;
  a.advantages = [config](const GroupRewards& answers) { return group_advantages(config.advantage, answers); };
  a.scale = [config](const LossBatch& update) { return grpo_scale(config, update); };
  a.loss = [config](const LossBatch& batch, const LossScale& scale) { return grpo_loss(config, batch, scale); };
  return a;
}

struct Entry {
  std::string_view name;
  Algorithm (*make)(const Json& settings, const JsonPath& where);
};

// One line an algorithm.
constexpr std::array kAlgorithms{
    Entry{"grpo", make_grpo},
};

}  // namespace

std::vector<std::string_view> algorithm_names() {
  std::vector<std::string_view> names;
  for (const Entry& entry : kAlgorithms) names.push_back(entry.name);
  return names;
}

Algorithm make_algorithm(const Json& config, const JsonPath& where) {
  if (!config.is_object()) throw std::invalid_argument(where.prefix() + "expected an object");
  const auto type = config.find("type");
  if (type == config.end() || !type->is_string())
    throw std::invalid_argument(where.key("type").prefix() + "missing; expected the algorithm's name" +
                                suggestion("", algorithm_names()));
  Json settings = config;
  settings.erase("type");
  for (const Entry& entry : kAlgorithms)
    if (*type == entry.name) return entry.make(settings, where);
  throw std::invalid_argument(where.key("type").prefix() + "unknown algorithm \"" + type->get<std::string>() + "\"" +
                              suggestion(type->get<std::string>(), algorithm_names()));
}

}  // namespace troupe
