// What this binary's topologies may name: the tables of roles and of algorithms.
#include <ATen/Context.h>

#include <algorithm>

#include "core/algorithms/table.hpp"
#include "core/generate/kernels.hpp"
#include "core/io/model_folder.hpp"
#include "launcher/topology.hpp"
#include "roles/actor.hpp"
#include "roles/learner.hpp"
#include "roles/role_table.hpp"

namespace troupe {
namespace {

void check_kernels(const Actor::Config& config, const JsonPath& where) {
  try {
    kernels::choose(config.kernels, config.dtype == ComputeDType::kBF16);
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument(where.key("kernels").prefix() + error.what());
  }
}

void check_lora(const LoraSection& lora, const JsonPath& where) {
  const std::vector<std::string> known = LoraConfig().target_modules;
  const std::vector<std::string_view> names(known.begin(), known.end());
  for (std::size_t i = 0; i < lora.target_modules.size(); ++i)
    if (const std::string& target = lora.target_modules[i]; std::ranges::find(known, target) == known.end())
      throw std::invalid_argument(where.key("target_modules").index(i).prefix() +
                                  "expected q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj or down_proj, found \"" +
                                  target + "\"" + suggestion(target, names));
}

// A role's own check, and what would only be found out when its engine is made.
Json check_role(const RoleEntry& role, const Json& config, const JsonPath& where) {
  Json filled = role.check(config, where);
  if (role.name == "actor") check_kernels(from_json<Actor::Config>(filled, where), where);
  if (role.name == "learner") check_lora(from_json<Learner::Config>(filled, where).lora, where.key("lora"));
  return filled;
}

int64_t max_positions(const std::string& model) {
  try {
    const DecoderConfig config = load_config(model);
    return config.rope.type == "dynamic" ? 0 : config.max_positions;
  } catch (const std::exception&) {
    return 0;  // whoever loads it says why
  }
}

}  // namespace

const Vocabulary& vocabulary() {
  static const Vocabulary words = [] {
    Vocabulary made;
    for (const RoleEntry& role : role_table())
      made.roles.push_back(
          {std::string(role.name), std::string(role.summary),
           [&role](const Json& config, const JsonPath& where) { return check_role(role, config, where); }});
    made.check_algorithm = [](const Json& algorithm, const JsonPath& where) {
      return make_algorithm(algorithm, where).needs_reference;
    };
    made.max_positions = max_positions;
    // Of the build, not of the machine: looking for a device would leave CUDA unusable in the processes forked later.
    made.cuda = at::globalContext().hasCUDART();
    return made;
  }();
  return words;
}

}  // namespace troupe
