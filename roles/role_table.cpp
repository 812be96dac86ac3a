#include "roles/role_table.hpp"

#include <array>

#include "core/train/schedule.hpp"
#include "roles/actor.hpp"
#include "roles/conductor.hpp"
#include "roles/learner.hpp"
#include "roles/reference.hpp"
#include "roles/reward_model.hpp"

namespace troupe {
namespace {

// Collects what is out of range, so that one run shows all of it.
class Ranges {
 public:
  explicit Ranges(const JsonPath& where) : where_(where) {}
  Ranges& need(bool holds, std::string_view key, const std::string& expected) {
    if (!holds) errors_.push_back(where_.key(key).prefix() + "expected " + expected);
    return *this;
  }
  void done() {
    if (!errors_.empty()) throw ConfigErrors(errors_);
  }

 private:
  JsonPath where_;
  std::vector<std::string> errors_;
};

void check_ranges(const Actor::Config& c, const JsonPath& where) {
  Ranges(where)
      .need(c.max_batch >= 1, "max_batch", "at least 1")
      .need(c.max_kv_tokens >= 1, "max_kv_tokens", "at least 1")
      .done();
}

void check_ranges(const Reference::Config& c, const JsonPath& where) {
  Ranges(where).need(c.micro_batch_tokens >= 0, "micro_batch_tokens", "0 (the whole batch at once) or more").done();
}

void check_ranges(const RewardModel::Config& c, const JsonPath& where) {
  RuleSet::from_json(Json{{"rules", *c.rules}}, where);
}

void check_ranges(const Learner::Config& c, const JsonPath& where) {
  Ranges(where)
      .need(c.lr > 0, "lr", "a rate above 0")
      .need(c.beta1 >= 0 && c.beta1 < 1, "beta1", "a number in [0, 1)")
      .need(c.beta2 >= 0 && c.beta2 < 1, "beta2", "a number in [0, 1)")
      .need(c.eps > 0, "eps", "a number above 0")
      .need(c.weight_decay >= 0, "weight_decay", "0 or more")
      .need(c.max_grad_norm >= 0, "max_grad_norm", "0 (no clipping) or more")
      .need(c.schedule == "constant" || c.schedule == "linear" || c.schedule == "cosine", "schedule",
            "\"constant\", \"linear\" or \"cosine\"" + suggestion(c.schedule, {"constant", "linear", "cosine"}))
      .need(c.schedule == "constant" || c.schedule_steps > 0, "schedule_steps",
            "the optimizer steps after which a " + c.schedule + " schedule ends")
      .need(c.warmup_steps >= 0, "warmup_steps", "0 or more")
      .need(c.epochs >= 1, "epochs", "at least 1")
      .need(c.mini_batches >= 1, "mini_batches", "at least 1")
      .need(c.micro_batch_tokens >= 0, "micro_batch_tokens", "0 (the whole batch at once) or more")
      .need(c.keep_checkpoints >= 1, "keep_checkpoints", "at least 1")
      .need(c.zero == 0 || c.zero == 1, "zero", "0 or 1")
      .need(c.lora.rank >= 0, "lora.rank", "0 (full fine-tuning) or more")
      .done();
}

void check_ranges(const Conductor::Config& c, const JsonPath& where) {
  Ranges(where)
      .need(*c.steps >= 1, "steps", "at least 1")
      .need(c.group_size >= 1, "group_size", "at least 1")
      .need(c.prompts_per_update >= 1, "prompts_per_update", "at least 1")
      .need(c.max_staleness >= 0 && c.max_staleness <= 15, "max_staleness", "0 (synchronous) to 15")
      .need(c.checkpoint_every >= 0, "checkpoint_every", "0 (at the end only) or more")
      .need(c.evaluation.temperature >= 0, "evaluation.temperature", "0 (the likeliest answer) or more")
      .need(c.evaluation.every >= 0, "evaluation.every", "0 (before and after the run only) or more")
      .done();
}

template <class Role>
Json check(const Json& json, const JsonPath& where) {
  const auto config = from_json<typename Role::Config>(json, where);
  check_ranges(config, where);
  return Json::parse(to_json(config).dump());
}

template <class Role>
Role made(const RoleSetting& setting, Context& context) {
  try {
    if constexpr (std::is_constructible_v<Role, const RoleSetting&, Context&>)
      return Role(setting, context);
    else
      return Role(setting);
  } catch (const std::invalid_argument& error) {
    throw WrongSettings(error.what());
  }
}

template <class Role>
void run_serving(const RoleSetting& setting, Context& context) {
  Role role = made<Role>(setting, context);
  serve(role, context);
}

void run_conductor(const RoleSetting& setting, Context& context) {
  const auto rendezvous = serve_rendezvous(setting, context);
  Conductor conductor = made<Conductor>(setting, context);
  drive(conductor, context);
}

constexpr std::array kRoles{
    RoleEntry{"actor", "generates answers with the policy's newest weights", check<Actor>, run_serving<Actor>, false},
    RoleEntry{"learner", "trains the policy and publishes its weights", check<Learner>, run_serving<Learner>, false},
    RoleEntry{"reference", "the frozen policy: scores tokens for the KL term", check<Reference>, run_serving<Reference>,
              false},
    RoleEntry{"reward", "scores answers by rules", check<RewardModel>, run_serving<RewardModel>, false},
    RoleEntry{"conductor", "owns prompts, steps and journal; asks the others in turn", check<Conductor>, run_conductor,
              true},
};

}  // namespace

std::span<const RoleEntry> role_table() {
  return kRoles;
}

const RoleEntry& role_entry(std::string_view name) {
  for (const RoleEntry& entry : kRoles)
    if (entry.name == name) return entry;
  throw std::invalid_argument("no role is named '" + std::string(name) + "'");
}

}  // namespace troupe
