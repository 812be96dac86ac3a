#include <mutex>
#include <thread>

#include "actors/fault_hooks.hpp"
#include "actors/rendezvous.hpp"
#include "roles/role_table.hpp"
#include "roles/run_disk.hpp"
#include "roles/run_file.hpp"
#include "roles/run_role.hpp"

namespace troupe {
namespace {

// One role on a thread of its own. What ends it is kept for the report.
class RoleThread {
 public:
  RoleThread(RoleSetting setting, NodeOptions options)
      : setting_(std::move(setting)), mailbox_(std::move(options)), thread_([this] { run(); }) {}

  Mailbox& mailbox() { return mailbox_; }
  bool ended() const { return ended_; }
  const std::string& error() const { return error_; }  // read it once ended()
  void join() { thread_.join(); }

 private:
  void run() {
    // No at::set_num_threads here: it also sets the matrix library's count, which is the process's. The roles that
    // compute with tensors set it themselves, all to the same planned number.
    Context context(mailbox_);
    name_fault_points(setting_.instance, 1);
    wait_for_room_beating(context);
    fault_point("load");
    try {
      role_entry(role_of(setting_.node())).run(setting_, context);
    } catch (const std::exception& error) {  // the thread's end: the process's report is made elsewhere
      error_ = error.what();
    }
    ended_ = true;
  }

  const RoleSetting setting_;
  SocketMailbox mailbox_;
  std::string error_;
  std::atomic<bool> ended_{false};
  std::thread thread_;
};

RunStatus status_of(const RunFile& run, const std::vector<std::unique_ptr<RoleThread>>& roles, bool stopping) {
  RunStatus status{.run = run.name, .state = stopping ? "stopping" : "running"};
  for (const auto& role : roles) {
    status.nodes.push_back(role->mailbox().status());
    status.restarts[status.nodes.back().node] = 0;
  }
  return status;
}

}  // namespace

int run_standalone(const std::filesystem::path& run_folder, const StandaloneHooks& hooks) {
  RunFile run = read_run_file(run_folder);
  const Topology topology = read_run_topology(run_folder);
  for (auto& [instance, endpoint] : run.endpoints) {
    const bool external =
        instance != "supervisor" && instance != kRendezvousNode && node_of(topology, instance).external;
    if (!external) endpoint = "inproc://" + file_name_of(instance);
  }
  const std::shared_ptr<Transport> transport = Transport::create();
  std::vector<std::unique_ptr<RoleThread>> roles;  // in start order; the conductor ends the run
  RoleThread* conductor = nullptr;
  for (const NodeSection& node : topology.nodes) {
    if (node.external) continue;
    for (const std::string& instance : instances_of(node)) {
      RoleSetting setting{.topology = topology,
                          .run_folder = run_folder,
                          .instance = instance,
                          .threads = static_cast<int>(node.threads),
                          .socket_folder = run.sockets,
                          .one_process = true};
      NodeOptions options = node_options(run, instance, 1, run.epoch, role_entry(role_of(node)).drives);
      options.supervisor.clear();  // one process: nobody to watch it from
      options.transport = transport;
      roles.push_back(std::make_unique<RoleThread>(std::move(setting), std::move(options)));
      if (role_entry(role_of(node)).drives) conductor = roles.back().get();
    }
  }
  bool stopping = false;
  const auto failed = [&]() -> RoleThread* {
    for (const auto& role : roles)
      if (role->ended() && !role->error().empty()) return role.get();
    return nullptr;
  };
  while (!conductor->ended() && !failed()) {
    std::this_thread::sleep_for(Millis(100));
    if (hooks.on_status) hooks.on_status(status_of(run, roles, stopping));
    if (hooks.stop_requests && *hooks.stop_requests > 0 && !stopping) {
      stopping = true;
      conductor->mailbox().request_stop("asked to stop");
    }
  }
  RoleThread* const first = failed();  // before others fail for want of it
  if (first && hooks.on_event) hooks.on_event(first->mailbox().options().node + ": " + first->error());
  // All of them before anybody is waited for: who waits for an answer of one that has ended is refused it now.
  for (const auto& role : roles) role->mailbox().request_stop("the run has ended");
  for (const auto& role : roles) role->join();
  return first ? 1 : 0;
}

}  // namespace troupe
