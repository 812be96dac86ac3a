#include "core/config.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

namespace troupe {
namespace {

enum class Loss { kGrpo, kDrGrpo };

}  // namespace
template <>
struct EnumNames<Loss> {
  static constexpr std::array kNames{std::pair<std::string_view, Loss>{"grpo", Loss::kGrpo},
                                     std::pair<std::string_view, Loss>{"dr_grpo", Loss::kDrGrpo}};
};
namespace {

struct Inner {
  Required<std::string> checkpoint;
  double lr = 1e-4;
  static constexpr std::tuple kFields{Field{"checkpoint", &Inner::checkpoint}, Field{"lr", &Inner::lr}};
};
TROUPE_FIELDS_COMPLETE(Inner);

struct Outer {
  bool flag = false;
  int32_t small = 7;
  uint64_t big = 0;
  uint8_t byte = 0;
  double number = 0.5;
  std::string text = "default";
  std::vector<Inner> nodes;
  std::map<std::string, int64_t> counts;
  std::optional<double> maybe;
  Loss loss = Loss::kGrpo;
  std::vector<bool> flags;
  Json raw;
  static constexpr std::tuple kFields{
      Field{"flag", &Outer::flag},   Field{"small", &Outer::small},   Field{"big", &Outer::big},
      Field{"byte", &Outer::byte},   Field{"number", &Outer::number}, Field{"text", &Outer::text},
      Field{"nodes", &Outer::nodes}, Field{"counts", &Outer::counts}, Field{"maybe", &Outer::maybe},
      Field{"loss", &Outer::loss},   Field{"flags", &Outer::flags},   Field{"raw", &Outer::raw}};
};
TROUPE_FIELDS_COMPLETE(Outer);

Outer read(const std::string& text) {
  return from_json<Outer>(parse_json(text, "t.json"), JsonPath("t.json"));
}

std::vector<std::string> errors_of(const std::string& text) {
  try {
    read(text);
  } catch (const ConfigErrors& e) {
    return e.errors();
  }
  return {};
}

std::string parse_error(const std::string& text, const JsonLimits& limits = {}) {
  try {
    parse_json(text, "t.json", limits);
  } catch (const std::invalid_argument& e) {
    return e.what();
  }
  return "parsed";
}

TEST(Config, ReadsEveryType) {
  const Outer o = read(R"({"flag":true,"small":-3,"big":18446744073709551615,"byte":255,"number":2,"text":"hé",
    "nodes":[{"checkpoint":"a"},{"checkpoint":"b","lr":0.5}],"counts":{"x":1,"y":-2},"maybe":3.5,"loss":"dr_grpo",
    "flags":[true,false],"raw":{"any":[1,"two"]}})");
  EXPECT_TRUE(o.flag);
  EXPECT_EQ(o.small, -3);
  EXPECT_EQ(o.big, UINT64_MAX);
  EXPECT_EQ(o.byte, 255);
  EXPECT_EQ(o.number, 2.0);
  EXPECT_EQ(o.text, "hé");
  ASSERT_EQ(o.nodes.size(), 2u);
  EXPECT_EQ(*o.nodes[0].checkpoint, "a");
  EXPECT_EQ(o.nodes[0].lr, 1e-4);
  EXPECT_EQ(o.nodes[1].lr, 0.5);
  EXPECT_EQ(o.counts.at("y"), -2);
  EXPECT_EQ(o.maybe, 3.5);
  EXPECT_EQ(o.loss, Loss::kDrGrpo);
  EXPECT_EQ(o.flags, (std::vector<bool>{true, false}));
  EXPECT_EQ(o.raw["any"][1], "two");
}

TEST(Config, MissingKeysKeepTheStructsDefaults) {
  const Outer o = read("{}");
  EXPECT_EQ(o.small, 7);
  EXPECT_EQ(o.text, "default");
  EXPECT_FALSE(o.maybe.has_value());
}

TEST(Config, NullEmptiesAnOptionalAndNothingElse) {
  EXPECT_FALSE(read(R"({"maybe":null})").maybe.has_value());
  EXPECT_EQ(errors_of(R"({"text":null})"), std::vector<std::string>{"t.json: text: expected a string, found null"});
}

TEST(Config, NamesAnUnknownKeyWithItsPathAndNearestNeighbour) {
  EXPECT_EQ(errors_of(R"({"nodes":[{"checkpoint":"a"},{"checkpoint":"b","rl":1}]})"),
            std::vector<std::string>{"t.json: nodes[1].rl: unknown key; did you mean 'lr'?"});
  EXPECT_EQ(errors_of(R"({"txet":"x"})"), std::vector<std::string>{"t.json: txet: unknown key; did you mean 'text'?"});
}

TEST(Config, NamesAMissingRequiredKeyWithItsType) {
  EXPECT_EQ(errors_of(R"({"nodes":[{}]})"),
            std::vector<std::string>{"t.json: nodes[0].checkpoint: missing; expected a string"});
}

TEST(Config, ReportsAllErrorsTogether) {
  const auto errors = errors_of(R"({"small":"abc","number":"abc","byte":256,"loss":"grop","nope":1,"nodes":[{}]})");
  EXPECT_EQ(errors.size(), 6u);
  EXPECT_NE(std::find(errors.begin(), errors.end(), "t.json: number: expected a number, found string \"abc\""),
            errors.end());
  EXPECT_NE(std::find(errors.begin(), errors.end(),
                      "t.json: loss: unknown value \"grop\"; expected one of: grpo, dr_grpo; did you mean 'grpo'?"),
            errors.end());
}

TEST(Config, RefusesNumbersThatDoNotFit) {
  for (const char* text :
       {R"({"small":2147483648})", R"({"small":-2147483649})", R"({"big":-1})", R"({"byte":-1})", R"({"small":1.0})",
        R"({"small":1e3})", R"({"big":18446744073709551616})", R"({"counts":{"x":9223372036854775808}})",
        R"({"small":true})", R"({"flag":1})", R"({"number":"1"})"})
    EXPECT_EQ(errors_of(text).size(), 1u) << text;
  EXPECT_EQ(errors_of(R"({"byte":256})"),
            std::vector<std::string>{"t.json: byte: expected an integer from 0 to 255, found 256"});
}

TEST(Config, WritesAllDefaultsInFieldOrderAndReadsThemBack) {
  Outer o;
  o.nodes = {Inner{{"base"}, 1e-5}};
  o.loss = Loss::kDrGrpo;
  o.raw = Json{{"k", 1}};
  const OrderedJson json = to_json(o);
  EXPECT_EQ(json.begin().key(), "flag");
  EXPECT_EQ(json["nodes"][0]["lr"], 1e-5);
  EXPECT_EQ(json["maybe"], nullptr);
  EXPECT_EQ(json["loss"], "dr_grpo");
  const Outer back = from_json<Outer>(Json(json), JsonPath("back"));
  EXPECT_EQ(to_json(back).dump(), json.dump());
}

TEST(Json, ErrorsNameLineAndColumn) {
  EXPECT_EQ(parse_error("{\"a\": 1,\n  \"a\": 2}").rfind("t.json:2:6: duplicate key \"a\"", 0), 0u)
      << parse_error("{\"a\": 1,\n  \"a\": 2}");
  EXPECT_EQ(parse_error("{\n\"a\": tru\n}").rfind("t.json:2:9: ", 0), 0u) << parse_error("{\n\"a\": tru\n}");
}

TEST(Json, RefusesWhatIsNotStrictJson) {
  for (const char* text : {"", "{", "{} x", "{\"a\":1,}", "// c\n{}", "{'a':1}", "[1e999]", "[NaN]",
                           "{\"a\":{\"b\":1,\"b\":2}}", "[\"\xff\xfe\"]", "nul"})
    EXPECT_NE(parse_error(text), "parsed") << text;
}

TEST(Json, DepthAndSizeAreBounded) {
  EXPECT_EQ(parse_error(std::string(64, '[') + std::string(64, ']')), "parsed");
  EXPECT_NE(parse_error(std::string(65, '[') + std::string(65, ']')).find("nested deeper than 64"), std::string::npos);
  EXPECT_NE(parse_error(std::string(1000000, '[')).find("nested deeper than 64"), std::string::npos);
  EXPECT_NE(parse_error("[1,2,3]", {.max_bytes = 6}).find("limit of 6"), std::string::npos);
}

TEST(Json, AConfigFilesErrorsNameTheLine) {
  const std::string path = ::testing::TempDir() + "/troupe_config_" + std::to_string(getpid()) + ".json";
  std::ofstream(path) << "{\n \"text\": \"a\",\n \"nodes\": [\n  {\"checkpoint\": \"a\"},\n  {\"lr\": \"x\"}\n ]\n}\n";
  const JsonFile file = read_config_file(path);
  std::vector<std::string> errors;
  try {
    from_json<Outer>(file.value, file.where);
  } catch (const ConfigErrors& e) {
    errors = e.errors();
  }
  ASSERT_EQ(errors.size(), 2u);
  EXPECT_EQ(errors[0], path + ":5: nodes[1].checkpoint: missing; expected a string");
  EXPECT_EQ(errors[1], path + ":5: nodes[1].lr: expected a number, found string \"x\"");
  std::filesystem::remove(path);
  EXPECT_THROW(read_config_file(path), std::runtime_error);
}

Json topology() {
  return parse_json(R"({"nodes":[{"name":"actor","count":2},{"name":"learner","config":{"lr":0.1,"deep":{"x":1}}}],
                        "list":[1,2]})",
                    "t.json");
}

std::string set_error(const std::string& assignment, NewKeys new_keys = NewKeys::kRefuse) {
  Json json = topology();
  try {
    set_by_path(json, assignment, new_keys);
  } catch (const std::invalid_argument& e) {
    EXPECT_EQ(json, topology());
    return e.what();
  }
  return "set";
}

TEST(SetByPath, ReachesKeysIndicesAndNames) {
  Json json = topology();
  set_by_path(json, "nodes.learner.config.lr=1e-5");
  set_by_path(json, "nodes.0.count=3");
  set_by_path(json, "list.1=[4,5]");
  set_by_path(json, "nodes.learner.config.deep.x=plain words=x");
  EXPECT_EQ(json["nodes"][1]["config"]["lr"], 1e-5);
  EXPECT_EQ(json["nodes"][0]["count"], 3);
  EXPECT_EQ(json["list"][1], Json::parse("[4,5]"));
  EXPECT_EQ(json["nodes"][1]["config"]["deep"]["x"], "plain words=x");
}

TEST(SetByPath, NamesTheNearestOfWhatThereIs) {
  EXPECT_EQ(set_error("nodes.lerner.config.lr=1"),
            "--set: 'nodes' has no element named 'lerner'; did you mean 'learner'?");
  EXPECT_EQ(set_error("nodes.learner.confg.lr=1"), "--set: 'nodes.learner' has no key 'confg'; did you mean 'config'?");
  EXPECT_EQ(set_error("list.2=1"), "--set: 'list' has 2 elements, no index 2");
  EXPECT_EQ(set_error("list.1.x=1"), "--set: 'list.1' is number 2, it has no 'x'");
  EXPECT_NE(set_error("nodes"), "set");
  EXPECT_NE(set_error("=1"), "set");
  EXPECT_NE(set_error("nodes..x=1"), "set");
}

TEST(SetByPath, AddsKeysWhenAsked) {
  Json json = topology();
  set_by_path(json, "nodes.actor.config.top_k=5", NewKeys::kAdd);
  EXPECT_EQ(json["nodes"][0]["config"]["top_k"], 5);
  EXPECT_NE(set_error("nodes.lerner.x=1", NewKeys::kAdd), "set");
}

}  // namespace
}  // namespace troupe
