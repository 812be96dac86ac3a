#include "launcher/topology.hpp"

#include <gtest/gtest.h>

#include "launcher/thread_plan.hpp"
#include "tests/core/metrics/scratch_folder.hpp"
#include "tests/launcher/pretend_cast.hpp"

namespace troupe {
namespace {

class TopologyFile : public testing::Test {
 protected:
  TopologyFile() { lay_out(folder_.path()); }

  Topology load(const Json& json, std::vector<std::string> overrides = {}) {
    write_text(folder_ / "t.json", json.dump(2));
    return load_topology(folder_ / "t.json", {std::move(overrides), folder_.path(), 8}, pretend_cast());
  }

  std::vector<std::string> faults_of(const Json& json, std::vector<std::string> overrides = {}) {
    try {
      load(json, std::move(overrides));
    } catch (const ConfigErrors& errors) {
      return errors.errors();
    }
    return {};
  }

  // Exactly one fault, which holds all the parts.
  void expect_fault(const Json& json, const std::vector<std::string>& parts) {
    const auto faults = faults_of(json);
    ASSERT_EQ(faults.size(), 1u) << testing::PrintToString(faults);
    EXPECT_NE(faults[0].find((folder_ / "t.json").string() + ":"), std::string::npos) << faults[0];
    for (const std::string& part : parts)
      EXPECT_NE(faults[0].find(part), std::string::npos) << "no '" << part << "' in: " << faults[0];
  }

  // The same with one value of the good topology replaced.
  void expect_fault(const std::string& pointer, const Json& value, const std::vector<std::string>& parts) {
    Json json = good_topology();
    json[Json::json_pointer(pointer)] = value;
    expect_fault(json, parts);
  }

  ScratchFolder folder_;
};

TEST_F(TopologyFile, FillsInDefaultsPathsRolesAndThreads) {
  const Topology topology = load(good_topology());
  EXPECT_EQ(topology.run.seed, 3u);
  EXPECT_EQ(*topology.model, (folder_ / "model").string());
  EXPECT_EQ(topology.prompts.held_out, (folder_ / "held_out.jsonl").string());
  EXPECT_EQ(topology.run.folder, (folder_ / "runs").string());
  EXPECT_EQ(topology.transport.ask_timeout_s, TransportSection().ask_timeout_s);
  ASSERT_EQ(topology.nodes.size(), 5u);
  EXPECT_EQ(topology.nodes[2].role, "learner");
  EXPECT_EQ(topology.nodes[2].config, Json::parse(R"({"lr": 0.001, "micro_batch": 8})"));
  EXPECT_EQ(topology.nodes[3].threads, 4) << "two actors share eight cores";
  EXPECT_EQ(topology.nodes[2].threads, 8);
  EXPECT_EQ(topology.nodes[1].threads, 1);
  EXPECT_EQ(topology.nodes[4].threads, 1);
}

TEST_F(TopologyFile, TheResolvedFileLoadsToTheSame) {
  const Topology topology = load(good_topology());
  write_run_topology(topology, folder_.path());
  EXPECT_EQ(to_json(read_run_topology(folder_.path())), to_json(topology));
  const Topology again = load_topology(folder_ / "topology.json", {{}, "/elsewhere", 2}, pretend_cast());
  EXPECT_EQ(to_json(again), to_json(topology)) << "a resume plans nothing anew";
}

TEST_F(TopologyFile, ThreadsThatAreGivenAreKept) {
  Json json = good_topology();
  json["nodes"][3]["threads"] = 3;
  EXPECT_EQ(load(json).nodes[3].threads, 3);
  json["nodes"][3] = {{"name", "actor"}, {"count", 20}};
  EXPECT_EQ(load(json).nodes[3].threads, 1) << "at least one";
}

TEST_F(TopologyFile, OverridesReachNodesByName) {
  const Topology topology =
      load(good_topology(), {"nodes.learner.config.lr=1e-5", "run.name=mine", "nodes.actor.count=1"});
  EXPECT_EQ(topology.nodes[2].config["lr"], 1e-5);
  EXPECT_EQ(topology.run.name, "mine");
  EXPECT_EQ(topology.nodes[3].count, 1);
  EXPECT_THROW(load(good_topology(), {"nodes.learnr.count=1"}), std::invalid_argument);
  EXPECT_THROW(load(good_topology(), {"nonsense"}), std::invalid_argument);
  EXPECT_EQ(faults_of(good_topology(), {"run.sed=4"}).size(), 1u);
}

TEST_F(TopologyFile, NamesTheNearestKeyOfAMisspeltOne) {
  expect_fault("/run/sed", 4, {"run.sed", "did you mean 'seed'?"});
  expect_fault("/nodes/2/confg", Json::object(), {"nodes[2].confg", "did you mean 'config'?"});
  expect_fault("/nodes/2/config/learning_rat", 1, {"nodes[2].config.learning_rat"});
  expect_fault("/algorithm/kl_bta", 1, {"algorithm.kl_bta", "'kl_beta'"});
  expect_fault("/run/mode", "proceses", {"run.mode", "did you mean 'processes'?"});
}

TEST_F(TopologyFile, NamesLinePathAndWhatWasExpected) {
  expect_fault("/run/seed", "x", {"run.seed", "expected"});
  expect_fault("/run/seed", -1, {"run.seed", "expected"});
  expect_fault("/nodes/0/count", 0, {"nodes[0].count: expected 1 to 1024"});
  expect_fault("/nodes/3/count", 1025, {"nodes[3].count: expected 1 to 1024"});
  expect_fault("/nodes/0/threads", -1, {"nodes[0].threads: expected 0 (planned)"});
  expect_fault("/nodes/0/device", "gpu", {"nodes[0].device: expected \"cpu\", \"cuda\" or \"cuda:N\", found \"gpu\""});
  expect_fault("/sampling/temperature", 0, {"sampling.temperature: expected a number above 0"});
  expect_fault("/sampling/temperature", 1e-4, {"sampling.temperature: expected a number above 0: 0.001 to 1000"});
  expect_fault("/sampling/temperature", 1001, {"sampling.temperature: expected"});
  expect_fault("/sampling/top_p", 1.5, {"sampling.top_p"});
  expect_fault("/sampling/max_new_tokens", 0, {"sampling.max_new_tokens"});
  expect_fault("/sampling/stop", Json::array({"a", ""}), {"sampling.stop[1]"});
  expect_fault("/transport/bind", "localhost", {"transport.bind: expected an IP address"});
  expect_fault("/transport/ask_timeout_s", 0, {"transport.ask_timeout_s"});
  expect_fault("/restarts/limit", -1, {"restarts.limit"});
  expect_fault("/restarts/lease_s", 0, {"restarts.lease_s"});
  expect_fault("/prompts/max_prompt_tokens", 0, {"prompts.max_prompt_tokens"});
  expect_fault("/nodes/4/config", Json::object(), {"nodes[4].config.steps: missing"});
}

TEST_F(TopologyFile, RefusesNamesThatAShellOrAPathCouldRead) {
  for (const char* name : {"a;b", "../up", "a/b", "-x", ".hidden", "a b", "$(x)", "Actor", "ä",
                           "a-name-of-more-than-thirty-two-letters"}) {
    Json json = good_topology();
    json["nodes"][3] = {{"name", name}, {"role", "actor"}};
    expect_fault(json, {"nodes[3].name: expected small letters"});
  }
  for (const char* name : {"../up", "a/b", "a..b", "a b", "-x", ".x"})
    expect_fault("/run/name", name, {"run.name: expected letters"});
}

TEST_F(TopologyFile, AnyNameMayPlayARole) {
  Json json = good_topology();
  json["nodes"][3] = {{"name", "fast-one"}, {"role", "actor"}};
  EXPECT_EQ(instances_of_role(load(json), "actor"), std::vector<std::string>{"fast-one/0"});
}

TEST_F(TopologyFile, KnowsWhoMustBeThere) {
  for (const auto& [index, role] : {std::pair{4, "conductor"}, {3, "actor"}, {2, "learner"}, {1, "reward"}}) {
    Json json = good_topology();
    json["nodes"].erase(index);
    expect_fault(json, {"nodes: no node plays \"" + std::string(role) + "\""});
  }
  Json json = good_topology();
  json["nodes"].erase(0);
  expect_fault(json, {"no node plays \"reference\", which the algorithm needs"});
  json["algorithm"]["kl_beta"] = 0;
  EXPECT_TRUE(faults_of(json).empty()) << "without a KL term none is needed";
}

TEST_F(TopologyFile, RefusesTwoOfWhatThereMayBeOneOf) {
  Json json = good_topology();
  json["nodes"].push_back({{"name", "second"}, {"role", "conductor"}, {"config", {{"steps", 1}}}});
  expect_fault(json, {"nodes[5]: nodes[4] plays \"conductor\" already"});
  json = good_topology();
  json["nodes"].push_back({{"name", "actor"}});
  expect_fault(json, {"nodes[5].name: nodes[3] is named \"actor\" already"});
  expect_fault("/nodes/4/count", 2, {"nodes[4].count: a run has one conductor"});
  json = good_topology();
  for (auto& node : json["nodes"])
    if (node["name"] == "learner") node.update({{"count", 2}, {"device", "cuda"}});
  expect_fault(json, {"].device: several learners train on the cpu so far"});
  json = good_topology();
  json["nodes"][3]["count"] = 600;
  json["nodes"].push_back({{"name", "more"}, {"role", "actor"}, {"count", 600}});
  expect_fault(json, {"at most 1024 processes"});
}

TEST_F(TopologyFile, NamesTheNearestRole) {
  Json json = good_topology();
  json["nodes"].push_back({{"name", "acter"}});
  expect_fault(json,
               {"nodes[5].name: unknown role \"acter\"", "known roles: conductor, actor", "did you mean 'actor'?"});
  json["nodes"][5] = {{"name", "x"}, {"role", "lerner"}};
  expect_fault(json, {"nodes[5].role: unknown role \"lerner\"", "did you mean 'learner'?"});
}

TEST_F(TopologyFile, NamesFilesThatAreNotThere) {
  expect_fault("/model", "absent", {"model: no model at " + (folder_ / "absent").string()});
  expect_fault("/prompts/file", "absent.jsonl", {"prompts.file: no file at"});
  write_text(folder_ / "broken.jsonl", "{\"prompt\": 3}\n");
  expect_fault("/prompts/file", "broken.jsonl", {"prompts.file: ", "broken.jsonl:1: \"prompt\" is no string"});
  expect_fault("/prompts/held_out", "model", {"prompts.held_out: no file at"});
  std::filesystem::create_directory(folder_ / "empty");
  expect_fault("/model", "empty", {"holds no config.json, and 0 .gguf files"});
  expect_fault("/model", "train.jsonl", {"model: no model at " + (folder_ / "train.jsonl").string()});
  expect_fault("/model", "", {"model: expected a Hugging Face folder or a GGUF file, found \"\""});
  Json json = good_topology();
  json.erase("model");
  expect_fault(json, {"model: missing"});
  expect_fault("/nodes/0/config", {{"model", "absent"}},
               {"nodes[0].config.model: no model at " + (folder_ / "absent").string()});
  EXPECT_THROW(load_topology(folder_ / "no-such.json", {}, pretend_cast()), std::exception);
}

TEST_F(TopologyFile, ANodesModelMayBeAFolderWithOneGgufFile) {
  std::filesystem::create_directory(folder_ / "own");
  write_text(folder_ / "own/a.gguf", "");
  Json json = good_topology();
  json["nodes"][0]["config"]["model"] = "own";
  EXPECT_EQ(load(json).nodes[0].config["model"], (folder_ / "own").string());
  write_text(folder_ / "own/b.gguf", "");
  expect_fault(json, {"nodes[0].config.model: ", "holds no config.json, and 2 .gguf files"});
}

TEST_F(TopologyFile, AProgramToLaunchWithMustBeThere) {
  expect_fault("/nodes/3/launch", Json::array({"no-such-program"}),
               {"nodes[3].launch[0]: no program \"no-such-program\"; expected one in PATH, or a path"});
  expect_fault("/nodes/3/launch", Json::array({folder_.path().string()}), {"nodes[3].launch[0]: no program"});
}

TEST_F(TopologyFile, ADeviceThatTheBuildHasNotIsRefused) {
  Vocabulary words = pretend_cast();
  words.cuda = false;
  Json json = good_topology();
  json["nodes"][3]["device"] = "cuda:1";
  write_text(folder_ / "t.json", json.dump(2));
  try {
    load_topology(folder_ / "t.json", {{}, folder_.path(), 8}, words);
    ADD_FAILURE() << "taken";
  } catch (const ConfigErrors& error) {
    EXPECT_NE(std::string(error.what()).find("nodes[3].device: this build of troupe has no CUDA; expected \"cpu\""),
              std::string::npos)
        << error.what();
  }
}

TEST_F(TopologyFile, PromptAndAnswerMustFitTheModel) {
  Vocabulary words = pretend_cast();
  words.max_positions = [](const std::string&) { return int64_t{271}; };
  write_text(folder_ / "t.json", good_topology().dump(2));
  try {
    load_topology(folder_ / "t.json", {{}, folder_.path(), 8}, words);
    ADD_FAILURE() << "taken";
  } catch (const ConfigErrors& error) {
    EXPECT_NE(std::string(error.what())
                  .find("sampling.max_new_tokens: 16 and prompts.max_prompt_tokens, 256, are more "
                        "than the model's 271 positions"),
              std::string::npos)
        << error.what();
  }
  load_topology(folder_ / "t.json", {{"prompts.max_prompt_tokens=255"}, folder_.path(), 8}, words);
}

TEST_F(TopologyFile, AnExternalNodeKeepsItsSettingsAndItsEndpoint) {
  Json json = good_topology();
  json["nodes"][1] = {
      {"name", "reward"}, {"external", true}, {"endpoint", "ipc:///tmp/mine"}, {"config", {{"anything", {1, 2}}}}};
  EXPECT_EQ(load(json).nodes[1].config, Json::parse(R"({"anything": [1, 2]})"));
  json["nodes"][1]["external"] = false;
  json["nodes"][1].erase("config");
  expect_fault(json, {"nodes[1].endpoint: only an external node"});
  json["nodes"][1]["external"] = true;
  json["nodes"][1]["endpoint"] = "file:///x";
  expect_fault(json, {"nodes[1].endpoint: expected \"ipc:///PATH\" or \"tcp://HOST:PORT\""});
  json = good_topology();
  json["nodes"][2]["external"] = true;
  expect_fault(json, {"nodes[2].external: only a reward may be external"});
}

TEST_F(TopologyFile, PlacesANodeOnAHostOfItsOwn) {
  Json json = good_topology();
  json["transport"]["control"] = "tcp";
  json["nodes"][2]["launch"] = {"env", "netns", "exec", "host; rm -rf /"};  // arguments, never a shell
  json["nodes"][2]["bind"] = "10.0.0.2:5555";
  json["nodes"][2]["advertise"] = "gateway:6000";
  EXPECT_EQ(load(json).nodes[2].launch.back(), "host; rm -rf /");
  json["nodes"][2]["bind"] = "[::1]:5555";
  EXPECT_EQ(load(json).nodes[2].bind, "[::1]:5555");
  for (const char* bind : {"somewhere", "10.0.0.2:", "10.0.0.2:0", "10.0.0.2:70000", "10.0.0.2:5x", "[::1", "1.2.3"}) {
    json["nodes"][2]["bind"] = bind;
    expect_fault(json, {"nodes[2].bind: expected an IP address, or ADDRESS:PORT"});
  }
  json["nodes"][2].erase("bind");
  json["nodes"][2]["advertise"] = ":6000";
  expect_fault(json, {"nodes[2].advertise: expected HOST:PORT"});
  json["nodes"][2]["advertise"] = "gateway:6000";
  json["transport"]["control"] = "ipc";
  expect_fault(json, {"nodes[2].advertise: needs \"transport\": {\"control\": \"tcp\"}"});
}

TEST_F(TopologyFile, ReportsAllFaultsAtOnce) {
  Json json = good_topology();
  json["run"]["sed"] = 1;
  json["model"] = "absent";
  json["nodes"][0]["count"] = 0;
  json["nodes"][2]["config"]["lr"] = "fast";
  json["nodes"].push_back({{"name", "acter"}});
  json["sampling"]["top_p"] = 2;
  const auto faults = faults_of(json);
  EXPECT_EQ(faults.size(), 6u) << testing::PrintToString(faults);
}

TEST_F(TopologyFile, ANodeThatCouldNotBeReadIsNotReportedMissing) {
  Json json = good_topology();
  json["nodes"][3] = {{"name", 7}};
  expect_fault(json, {"nodes[3].name"});
  json["nodes"][3] = {{"role", "actor"}};
  expect_fault(json, {"nodes[3].name: missing"});
}

TEST_F(TopologyFile, RefusesWhatIsNoTopologyAtAll) {
  for (const char* text : {"", "[]", "{", "7", "{\"nodes\": {}}", "{\"run\": []}"}) {
    write_text(folder_ / "t.json", text);
    EXPECT_THROW(load_topology(folder_ / "t.json", {}, pretend_cast()), std::invalid_argument) << text;
  }
}

TEST_F(TopologyFile, IsDescribedNodeByNode) {
  const std::string text = describe(load(good_topology()), pretend_cast());
  EXPECT_NE(text.find("actor"), std::string::npos);
  EXPECT_NE(text.find("generates"), std::string::npos);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 6);
}

// Every key of `T` and of the structs within it.
template <class T>
void expect_documented(const std::string& page) {
  T object{};
  for_each_field(object, [&](std::string_view name, const auto& value) {
    using Value = std::remove_cvref_t<decltype(value)>;
    if constexpr (Fielded<Value>) {
      EXPECT_NE(page.find("### " + std::string(name)), std::string::npos) << name;
      expect_documented<Value>(page);
    } else if constexpr (std::is_same_v<Value, std::vector<NodeSection>>) {
      expect_documented<NodeSection>(page);
    } else if constexpr (!std::is_same_v<T, Topology>) {
      EXPECT_NE(page.find("\n| `" + std::string(name) + "` |"), std::string::npos) << name;
    }
  });
}

TEST(TopologyPage, ExplainsEveryKey) {
  expect_documented<Topology>(text_of(std::string(TROUPE_SOURCE_DIR) + "/docs/topology.md"));
}

TEST(ThreadPlan, UsesAtLeastOneCore) {
  EXPECT_GE(host_cores(), 1);
}

}  // namespace
}  // namespace troupe
