// An actor and the weights it is offered: whole, or not at all.
#include "core/io/model_folder.hpp"
#include "core/io/weight_layout.hpp"
#include "roles/actor.hpp"
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

}  // namespace
}  // namespace troupe
