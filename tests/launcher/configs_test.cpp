// Every file of configs/ is loaded and checked with the real tables of roles and algorithms.
#include <gtest/gtest.h>

#include "launcher/topology.hpp"
#include "tests/core/metrics/scratch_folder.hpp"

namespace troupe {
namespace {

// Model and prompts need not be there for a check of the rest: stand-ins are laid where the file names them.
void lay_out_files(const Json& topology, const std::filesystem::path& folder) {
  const auto parent_of = [&](const std::string& path) {
    std::filesystem::create_directories((folder / path).parent_path());
    return folder / path;
  };
  const std::string model = topology.at("model").get<std::string>();
  if (model.ends_with(".gguf")) {
    write_text(parent_of(model), "");
  } else {
    std::filesystem::create_directories(parent_of(model));
    write_text(folder / model / "config.json", "{}");
  }
  for (const char* key : {"file", "held_out"})
    if (topology.at("prompts").contains(key))
      write_text(parent_of(topology["prompts"][key].get<std::string>()), R"({"prompt": "1 + 1?"})"
                                                                         "\n");
}

TEST(Configs, AreAllGood) {
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(std::string(TROUPE_SOURCE_DIR) + "/configs")) {
    if (entry.path().extension() != ".json") continue;
    ++count;
    const ScratchFolder folder;
    lay_out_files(read_config_file(entry.path()).value, folder.path());
    try {
      load_topology(entry.path(), {{}, folder.path(), 2});
    } catch (const std::exception& error) {
      ADD_FAILURE() << error.what();
    }
  }
  EXPECT_GE(count, 1u);
}

TEST(Configs, EveryRolesSettingsAreExplained) {
  const ScratchFolder folder;
  const std::filesystem::path file = std::string(TROUPE_SOURCE_DIR) + "/configs/grpo-tiny-local.json";
  lay_out_files(read_config_file(file).value, folder.path());
  const std::string page = text_of(std::string(TROUPE_SOURCE_DIR) + "/docs/topology.md");
  for (const NodeSection& node : load_topology(file, {{}, folder.path(), 2}).nodes)
    for (const auto& [key, value] : node.config.items())
      EXPECT_NE(page.find("`" + key + "`"), std::string::npos) << *node.name << ": " << key;
}

TEST(Configs, SeveralLearnersTrainSynchronousRunsOnly) {
  const ScratchFolder folder;
  const std::filesystem::path file = std::string(TROUPE_SOURCE_DIR) + "/configs/grpo-tiny-local.json";
  lay_out_files(read_config_file(file).value, folder.path());
  load_topology(file, {{"nodes.learner.count=2"}, folder.path(), 2});
  try {
    load_topology(file, {{"nodes.learner.count=2", "nodes.conductor.config.max_staleness=1"}, folder.path(), 2});
    ADD_FAILURE() << "taken";
  } catch (const std::exception& error) {
    EXPECT_NE(std::string(error.what()).find("max_staleness: several learners train synchronous runs"),
              std::string::npos)
        << error.what();
  }
}

TEST(Configs, WhatAnEngineWouldRefuseIsAFault) {
  const ScratchFolder folder;
  const std::filesystem::path file = std::string(TROUPE_SOURCE_DIR) + "/configs/grpo-tiny-local.json";
  lay_out_files(read_config_file(file).value, folder.path());
  const auto faults_of = [&](const std::vector<std::string>& overrides) -> std::string {
    try {
      load_topology(file, {overrides, folder.path(), 2});
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
    return "";
  };
  const auto expect_fault = [&](const std::string& assignment, const std::string& fault) {
    EXPECT_NE(faults_of({assignment}).find(fault), std::string::npos) << assignment << ": " << faults_of({assignment});
  };
  expect_fault("nodes.actor.config.kernels=\"amxx\"", "config.kernels: kernels \"amxx\" for ");
  expect_fault("nodes.learner.config.lora.target_modules=[\"nope\"]",
               "config.lora.target_modules[0]: expected q_proj, k_proj");
  expect_fault("nodes.conductor.config.evaluation.rule=\"nope\"",
               "config.evaluation.rule: no rule of the reward is named \"nope\"; expected one of ");
  expect_fault("algorithm.advantage={\"combination\": \"normalize_then_sum\", \"part_weights\": {\"nope\": 1}}",
               "algorithm.advantage.part_weights.nope: no rule of the reward is named \"nope\"");
  const std::string rules = "nodes.reward.config.rules=[{\"type\": \"overlong\", \"buffer_tokens\": 9}]";
  EXPECT_NE(faults_of({rules, "sampling.max_new_tokens=8"}).find("rules[0].buffer_tokens: expected at most sampling."),
            std::string::npos);
  EXPECT_EQ(faults_of({rules, "sampling.max_new_tokens=9", "nodes.conductor.config.evaluation.rule="}), "");
}

TEST(Configs, TheRolesAreThoseOfTheTable) {
  std::vector<std::string> names;
  for (const RoleKind& role : vocabulary().roles) names.push_back(role.name);
  for (const char* role : {"conductor", "actor", "learner", "reference", "reward"})
    EXPECT_NE(std::find(names.begin(), names.end(), role), names.end()) << role;
}

}  // namespace
}  // namespace troupe
