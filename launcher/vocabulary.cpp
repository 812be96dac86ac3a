// What this binary's topologies may name: the tables of roles and of algorithms.
#include "core/algorithms/table.hpp"
#include "launcher/topology.hpp"
#include "roles/role_table.hpp"

namespace troupe {

const Vocabulary& vocabulary() {
  static const Vocabulary words = [] {
    Vocabulary made;
    for (const RoleEntry& role : role_table())
      made.roles.push_back({std::string(role.name), std::string(role.summary), role.check});
    made.check_algorithm = [](const Json& algorithm, const JsonPath& where) {
      return make_algorithm(algorithm, where).needs_reference;
    };
    return made;
  }();
  return words;
}

}  // namespace troupe
