// The roles by name: what the launcher may start. Adding one means its own file pair and one line in role_table.cpp.
#pragma once

#include <span>
#include <string_view>

#include "actors/handle.hpp"
#include "roles/setting.hpp"

namespace troupe {

// A role cannot be made of its settings: it could not either if it were started again.
struct WrongSettings : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

struct RoleEntry {
  std::string_view name;
  std::string_view summary;  // one line, for `troupe topology show`
  // The role's config with its defaults filled in. Throws std::invalid_argument (ConfigErrors) naming the path under
  // `where` for one that makes no sense.
  Json (*check)(const Json& config, const JsonPath& where);
  // Builds the role and serves (or drives) until the node is stopped. Throws WrongSettings, and whatever the role does.
  void (*run)(const RoleSetting& setting, Context& context);
  bool drives;  // the conductor: its end is the run's end
};

std::span<const RoleEntry> role_table();

// Throws std::invalid_argument naming the role when there is none of that name.
const RoleEntry& role_entry(std::string_view name);

}  // namespace troupe
