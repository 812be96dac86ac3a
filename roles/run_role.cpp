#include "roles/run_role.hpp"

#include <ATen/Parallel.h>
#include <pthread.h>

#include <cstdio>

#include "actors/fault_hooks.hpp"
#include "actors/supervision.hpp"
#include "roles/role_table.hpp"
#include "roles/run_disk.hpp"
#include "roles/run_file.hpp"

namespace troupe {

int run_role(const std::filesystem::path& run_folder, const std::string& node, uint64_t incarnation, uint64_t epoch) {
  pthread_setname_np(pthread_self(), node.substr(0, 15).c_str());  // for top; 15 characters is the system's limit
  name_fault_points(node, incarnation);
  fault_point("start");
  const RunFile run = read_run_file(run_folder);
  RoleSetting setting{.topology = read_run_topology(run_folder),
                      .run_folder = run_folder,
                      .instance = node,
                      .socket_folder = run.sockets};
  setting.threads = static_cast<int>(setting.node().threads);
  const RoleEntry& entry = role_entry(role_of(setting.node()));
  at::set_num_threads(setting.threads);
  SocketMailbox mailbox(node_options(run, node, incarnation, epoch, entry.drives));
  Context context(mailbox);
  wait_for_room_beating(context);
  fault_point("load");
  try {
    entry.run(setting, context);
  } catch (const WrongSettings& error) {
    std::fprintf(stderr, "troupe: %s\n", error.what());
    return kWrongSettings;
  }
  return 0;
}

}  // namespace troupe
