// Weights change whole and once: an actor takes a version it can verify or keeps the one it has, a learner trains on a
// step once.
#include <ATen/ops/equal.h>

#include "core/io/model_folder.hpp"
#include "core/io/weight_layout.hpp"
#include "roles/actor.hpp"
#include "roles/learner.hpp"
#include "roles/run_journal.hpp"
#include "tests/core/metrics/scratch_folder.hpp"
#include "tests/roles/run_fixture.hpp"

namespace troupe {
namespace {

// A version of the tiny model in memory, with one byte changed where told.
WeightManifest publish(uint64_t version, std::optional<std::size_t> spoilt_byte) {
  const LoadedModel model = load_model(TinyWorld::get().folder / "model", at::kFloat);
  WeightManifest manifest = layout_of(model.weights, "f32", version);
  auto region = SharedRegion::create(manifest.total_bytes);
  pack(model.weights, manifest, region->writable());
  if (spoilt_byte) region->writable()[*spoilt_byte] ^= std::byte{1};
  region->seal();
  const std::string name = "weights-test-" + std::to_string(version);
  manifest.location = "inproc:" + name;
  InprocRegions::publish(name, region);
  return manifest;
}

TEST(Weights, AnActorTakesAVersionWholeOrKeepsTheOneItHas) {
  const std::filesystem::path folder = undisturbed(5).folder();
  SocketMailbox mailbox({.node = "actor/0", .incarnation = 1, .run = "test"});
  Context context(mailbox);
  Actor actor({.topology = read_run_topology(folder),
               .run_folder = folder,
               .instance = "actor/0",
               .socket_folder = folder.string(),
               .one_process = true},
              context);
  EXPECT_EQ(actor.handle(TakeWeights{publish(1, std::nullopt)}).version, 1u);
  for (const std::size_t byte : {std::size_t{0}, std::size_t{100'001}}) {
    EXPECT_THROW(actor.handle(TakeWeights{publish(2, byte)}), std::runtime_error) << byte;
    WeightManifest renamed = publish(3, std::nullopt);
    renamed.digest[0] = renamed.digest[0] == '0' ? '1' : '0';
    EXPECT_THROW(actor.handle(TakeWeights{renamed}), std::runtime_error);
    EXPECT_EQ(actor.handle(CancelGenerate{}).version, 1u) << "it samples from what it could not verify";
  }
  EXPECT_EQ(actor.handle(TakeWeights{publish(2, std::nullopt)}).version, 2u);
}

// The conductor that asked may have died before it read the answer; its successor asks again.
TEST(Weights, ALearnerTrainsOnAStepOnceHoweverOftenItIsAsked) {
  const TroupeRun& run = undisturbed(5);
  const std::vector<Experience> batches = read_experiences(run.folder() / "journal");
  const ScratchFolder scratch;  // without checkpoints: it starts from the base model
  SocketMailbox mailbox({.node = "learner/0", .incarnation = 1, .run = "test"});
  Context context(mailbox);
  Learner learner({.topology = read_run_topology(run.folder()),
                   .run_folder = scratch.path(),
                   .instance = "learner/0",
                   .socket_folder = scratch.path().string(),
                   .one_process = true},
                  context);
  const auto digest = [&](uint64_t version) {
    return learner.handle(PublishWeights{.version = version, .dtype = "f32"}).manifest.digest;
  };
  const Updated first = learner.handle(Update{.batch = batches[0]});
  const std::string after_first = digest(1);
  EXPECT_EQ(learner.handle(Update{.batch = batches[0]}).metrics, first.metrics);
  EXPECT_EQ(learner.handle(AskState{}).step, 1u);
  EXPECT_EQ(digest(1), after_first);
  EXPECT_THROW(learner.handle(Update{.batch = batches[2]}), RemoteFailure);  // behind: step 2 comes first
  EXPECT_EQ(learner.handle(Update{.batch = batches[1]}).step, 2u);
  EXPECT_NE(digest(2), after_first);
}

// What is published in bfloat16 is the memory that the learner computes from.
TEST(Weights, APublishedVersionStaysAsItIsWhileTheLearnerTrainsOn) {
  const TroupeRun& run = undisturbed(5);
  const std::vector<Experience> batches = read_experiences(run.folder() / "journal");
  Topology topology = read_run_topology(run.folder());
  for (NodeSection& node : topology.nodes)
    if (role_of(node) == "learner") node.config["dtype"] = "bf16";
  const ScratchFolder scratch;
  SocketMailbox mailbox({.node = "learner/0", .incarnation = 1, .run = "test"});
  Context context(mailbox);
  Learner learner({.topology = topology,
                   .run_folder = scratch.path(),
                   .instance = "learner/0",
                   .socket_folder = scratch.path().string(),
                   .one_process = true},
                  context);
  struct Version {
    WeightManifest manifest;
    std::shared_ptr<SharedRegion> region;
  };
  const auto publish = [&](uint64_t version, const std::string& dtype, uint64_t keep_from) {
    const WeightManifest manifest =
        learner.handle(PublishWeights{.version = version, .dtype = dtype, .keep_from = keep_from}).manifest;
    const auto region = open_region(manifest.location, Millis(1000));
    verify(manifest, region->bytes());
    return Version{manifest, region};
  };
  std::vector<Version> versions;
  for (uint64_t step = 1; step <= 3; ++step) {
    learner.handle(Update{.batch = batches[step - 1], .keep_from = step > 1 ? step - 1 : 0});
    const Version now = publish(step, "bf16", step > 1 ? step - 1 : 0);
    for (const Version& before : versions) {
      verify(before.manifest, before.region->bytes());
      EXPECT_NE(before.manifest.digest, now.manifest.digest);
    }
    versions.push_back(now);
  }
  const Version again = publish(3, "bf16", 4);  // withdrawn, and asked for again
  EXPECT_EQ(again.manifest.digest, versions.back().manifest.digest);
  const Version masters = publish(3, "f32", 4);
  const StateDict rounded = unpack(again.manifest, again.region->bytes(), again.region);
  for (const auto& [name, master] : unpack(masters.manifest, masters.region->bytes(), masters.region))
    EXPECT_TRUE(at::equal(rounded.at(name), master.to(at::kBFloat16))) << name;
}

}  // namespace
}  // namespace troupe
