#include "launcher/run_folder.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <algorithm>
#include <set>

#include "launcher/spawn.hpp"
#include "launcher/topology.hpp"
#include "tests/core/metrics/scratch_folder.hpp"
#include "tests/launcher/pretend_cast.hpp"

namespace troupe {
namespace {

class Folder : public testing::Test {
 protected:
  Folder() : topology_(topology_from(good_topology(), JsonPath("t"))) {
    topology_.run.folder = (scratch_ / "runs").string();
    for (NodeSection& node : topology_.nodes) node.threads = 2;
  }
  ScratchFolder scratch_;
  Topology topology_;
};

TEST_F(Folder, IsNamedAfterAlgorithmModelAndTime) {
  topology_.model.value = "/models/My Model.Q4.gguf";
  const auto folder = make_run_folder(topology_, std::nullopt);
  EXPECT_EQ(folder.parent_path(), scratch_ / "runs");
  EXPECT_TRUE(folder.filename().string().starts_with("grpo-my-model.q4-20")) << folder;
  for (const char* sub : {"logs", "checkpoints", "journal", "tensorboard", "export"})
    EXPECT_TRUE(std::filesystem::is_directory(folder / sub)) << sub;
  topology_.run.name = "mine";
  EXPECT_EQ(make_run_folder(topology_, std::nullopt), scratch_ / "runs/mine");
}

TEST_F(Folder, TwoOfOneSecondAreTwo) {
  std::set<std::filesystem::path> folders;
  for (int i = 0; i < 5; ++i) folders.insert(make_run_folder(topology_, std::nullopt));  // before either is laid out
  EXPECT_EQ(folders.size(), 5u);
  EXPECT_TRUE(
      std::ranges::any_of(folders, [](const auto& folder) { return folder.filename().string().ends_with("-2"); }));
}

TEST_F(Folder, IsNotTakenTwice) {
  const auto folder = make_run_folder(topology_, scratch_ / "r");
  write_run_topology(topology_, folder);
  try {
    make_run_folder(topology_, scratch_ / "r");
    ADD_FAILURE();
  } catch (const std::runtime_error& error) {
    EXPECT_NE(std::string(error.what()).find("troupe resume"), std::string::npos);
  }
}

TEST_F(Folder, WithoutARunIsSaidSo) {
  EXPECT_THROW(require_run(scratch_ / "absent"), std::runtime_error);
  EXPECT_THROW(require_run(scratch_.path()), std::runtime_error);
}

TEST_F(Folder, TheLockNamesItsHolderToOtherProcesses) {
  const RunLock lock(scratch_.path());
  const pid_t child = fork();
  if (child == 0) {  // locks are between processes
    bool refused = false;
    try {
      const RunLock second(scratch_.path());
    } catch (const std::runtime_error& error) {
      refused = std::string(error.what()).find("process " + std::to_string(getppid())) != std::string::npos;
    }
    _exit(refused && launcher_of(scratch_.path()) == getppid() ? 0 : 1);
  }
  int status = 1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST_F(Folder, TheLockEndsWithItsHolder) {
  const pid_t child = fork();
  if (child == 0) {
    const RunLock lock(scratch_.path());
    _exit(0);  // without unlocking
  }
  int status = 1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(launcher_of(scratch_.path()), std::nullopt);
  const RunLock lock(scratch_.path());
}

TEST_F(Folder, SocketsArePrivateShortAndRemoved) {
  std::filesystem::path path;
  {
    const SocketFolder sockets;
    path = sockets.path();
    struct stat facts {};
    ASSERT_EQ(stat(path.c_str(), &facts), 0);
    EXPECT_EQ(facts.st_mode & 0777, 0700u);
    EXPECT_LT(path.string().size() + 40, 100u);
    write_text(path / "left", "x");
  }
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(Folder, SocketsThatAKilledLauncherLeftAreRemoved) {
  const SocketFolder left;
  write_text(left.path() / "learner-0.key", "secret");
  std::filesystem::create_directory(scratch_ / "troupe-abcdef");
  RunFile before;
  before.sockets = left.path().string();
  for (const std::string state : {"done", "stopped", "failed"}) {
    before.state = state;
    remove_left_sockets(before);
    EXPECT_TRUE(std::filesystem::exists(left.path())) << "it ended, and removed its own: this is another's";
  }
  before.state = "running";
  for (const std::string& foreign : {(scratch_ / "troupe-abcdef").string(), (left.path() / "../..").string(),
                                     std::string("/tmp/troupe-absent"), std::string("/tmp"), std::string()}) {
    before.sockets = foreign;
    remove_left_sockets(before);
    EXPECT_TRUE(std::filesystem::exists(left.path()) && std::filesystem::exists(scratch_ / "troupe-abcdef")) << foreign;
  }
  before.sockets = left.path().string();
  remove_left_sockets(before);
  EXPECT_FALSE(std::filesystem::exists(left.path()));
}

TEST_F(Folder, ARunFileGivesEveryInstanceItsPlace) {
  const SocketFolder sockets;
  topology_.nodes[1].external = true;
  topology_.nodes[1].endpoint = "ipc:///tmp/own";
  const RunFile run = make_run_file(topology_, scratch_ / "r1", sockets.path(), std::nullopt);
  write_run_file(run, scratch_.path());
  EXPECT_EQ(to_json(read_run_file(scratch_.path())), to_json(run));
  EXPECT_EQ(run.id, "r1.1");
  EXPECT_EQ(run.endpoints.size(), 7u);
  EXPECT_EQ(run.endpoints.at("actor/1"), "ipc://" + sockets.path().string() + "/actor-1");
  EXPECT_EQ(run.endpoints.at("reward/0"), "ipc:///tmp/own");
  const RunFile second = make_run_file(topology_, scratch_ / "r1", sockets.path(), run);
  EXPECT_EQ(second.id, "r1.2");
  EXPECT_GT(second.epoch, run.epoch + 1000) << "above every epoch that restarts of the conductor may have reached";

  const NodeOptions actor = node_options(run, "actor/0", 3, run.epoch, false);
  EXPECT_EQ(actor.incarnation, 3u);
  EXPECT_EQ(actor.supervisor, "supervisor");
  EXPECT_EQ(actor.peers.size(), 6u);
  EXPECT_FALSE(actor.peers.contains("actor/0"));
  EXPECT_TRUE(node_options(run, "supervisor", 1, 1, false).supervisor.empty());
  EXPECT_THROW(node_options(run, "actor/7", 1, 1, false), std::invalid_argument);
}

TEST_F(Folder, TcpGivesPortsAndKeysThatOnlyTheirNodeCanRead) {
  const SocketFolder sockets;
  topology_.transport.control = ControlTransport::kTcp;
  const RunFile run = make_run_file(topology_, scratch_ / "r1", sockets.path(), std::nullopt);
  EXPECT_TRUE(run.endpoints.at("learner/0").starts_with("tcp://127.0.0.1:"));
  EXPECT_NE(run.endpoints.at("learner/0"), run.endpoints.at("actor/0"));
  EXPECT_EQ(run.public_keys.size(), 8u) << "six processes, the supervisor, and whoever asks for the status";
  struct stat facts {};
  ASSERT_EQ(stat(secret_key_file(run, "actor/0").c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 0777, 0600u);
  const NodeOptions actor = node_options(run, "actor/0", 1, 1, false);
  EXPECT_EQ(actor.keys.public_key, run.public_keys.at("actor/0"));
  EXPECT_EQ(actor.keys.secret_key.size(), 40u);
  EXPECT_EQ(actor.peers.at("learner/0").public_key, run.public_keys.at("learner/0"));
  EXPECT_EQ(to_json(run).dump().find(actor.keys.secret_key), std::string::npos) << "secrets stay out of the run's file";
}

TEST_F(Folder, ProcessesAreStartedAsPlanned) {
  const SocketFolder sockets;
  topology_.nodes[1].external = true;
  topology_.nodes[0].launch = {"/usr/bin/ssh", "far"};
  topology_.restarts = {3, 10, 7, 50};
  const RunFile run = make_run_file(topology_, scratch_ / "r1", sockets.path(), std::nullopt);
  const SupervisorOptions options = supervisor_options(topology_, run, scratch_ / "r1", "/bin/troupe");
  ASSERT_EQ(options.nodes.size(), 5u) << "the external one is somebody else's";
  const NodeProcess& far = options.nodes[0];
  EXPECT_EQ(far.node.name, "reference/0");
  EXPECT_EQ(far.process.argv[1], "far");
  EXPECT_EQ(far.node.leases.of("idle"), Millis(7'000)) << "it may be its link that does not move";
  EXPECT_EQ(options.restarts.limit, 3);
  EXPECT_EQ(options.restarts.window, Millis(10'000));
  const NodeProcess& actor = options.nodes[2];
  EXPECT_EQ(actor.process.argv, (std::vector<std::string>{"/bin/troupe", "role", "--run", (scratch_ / "r1").string(),
                                                          "--node", "actor/0"}));
  EXPECT_EQ(actor.process.env.at("OMP_NUM_THREADS"), "2");
  EXPECT_EQ(actor.process.log_path, (scratch_ / "r1/logs/actor-0.log").string());
  EXPECT_EQ(actor.node.leases.of("generate"), Millis(7'000));
  EXPECT_EQ(actor.node.leases.of("load"), Millis(50'000));
  EXPECT_EQ(actor.node.leases.of("idle"), Millis(5'000));
  EXPECT_FALSE(actor.node.drives);
  EXPECT_TRUE(options.nodes[4].node.drives);
  EXPECT_EQ(options.nodes[4].node.on_failure, OnFailure::kStop);
}

}  // namespace
}  // namespace troupe
