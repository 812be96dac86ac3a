#include "core/io/safetensors.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <fstream>
#include <random>

#include "tests/core/io/scratch_folder.hpp"
#include "tests/support/fuzz.hpp"

namespace troupe {
namespace {

const std::filesystem::path kModels = TROUPE_SOURCE_DIR "/tests/oracles/data/models";

std::string with_length(const std::string& header, const std::string& data) {
  std::string file(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) file[i] = static_cast<char>(uint64_t{header.size()} >> (8 * i));
  return file + header + data;
}

std::string entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

// "" when it is accepted.
std::string refusal(const std::string& bytes) {
  const ScratchFolder scratch;
  const auto path = scratch / "x.safetensors";
  std::ofstream(path, std::ios::binary) << bytes;
  try {
    SafetensorsFile file(path);
    for (const auto& [name, e] : file.header().tensors) file.read(name);
  } catch (const std::exception& e) {
    EXPECT_NE(std::string(e.what()).find("x.safetensors"), std::string::npos) << e.what();
    return e.what();
  }
  return "";
}

struct Malicious {
  const char* what;
  std::string bytes;
  const char* message;  // a part of it
};

std::string length_only(uint64_t length, const std::string& rest) {
  std::string file(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) file[i] = static_cast<char>(length >> (8 * i));
  return file + rest;
}

std::vector<Malicious> malicious_files() {
  const std::string d4(4, 'x'), d8(8, 'x');
  const auto one = [&](const std::string& e, const std::string& data = std::string(4, 'x')) {
    return with_length("{\"a\":" + e + "}", data);
  };
  const auto f32 = [](const std::string& shape, const std::string& offsets) { return entry("F32", shape, offsets); };
  return {
      {"empty", "", "0 bytes"},
      {"seven bytes", std::string(7, '\0'), "7 bytes"},
      {"length 2^63", length_only(uint64_t{1} << 63, "{}"), "limit is 100000000"},
      {"length 2^64-1", length_only(UINT64_MAX, "{}"), "limit is 100000000"},
      {"length just over the limit", length_only(100'000'001, "{}"), "limit is 100000000"},
      {"length 2^64-8 wraps", length_only(UINT64_MAX - 7, "{}"), "limit"},
      {"length beyond the file", length_only(3, "{}"), "cut short"},
      {"no header", length_only(0, ""), "does not begin with '{'"},
      {"begins with a blank", with_length(" {}", ""), "does not begin with '{'"},
      {"is an array", with_length("[]", ""), "does not begin with '{'"},
      {"unfinished", with_length("{\"a\":", ""), "is no JSON"},
      {"two values", with_length("{}{}", ""), "is no JSON"},
      {"invalid UTF-8", with_length("{\"\xff\":1}", ""), "is no JSON"},
      {"NUL inside", with_length(std::string("{\0}", 3), ""), "is no JSON"},
      {"comment", with_length("{/**/}", ""), "is no JSON"},
      {"trailing bytes", with_length("{\"a\":" + f32("[1]", "[0,4]") + "}", d8), "end at byte 4"},
      {"only trailing bytes", with_length("{}", d4), "end at byte 0"},
      {"file cut short", one(f32("[2]", "[0,8]"), d4), "the file has 4"},
      {"hole at the front", one(f32("[1]", "[4,8]"), d8), "leave a hole"},
      {"hole between", with_length("{\"a\":" + f32("[1]", "[0,4]") + ",\"b\":" + f32("[1]", "[8,12]") + "}", d8 + d4),
       "leave a hole"},
      {"overlap", with_length("{\"a\":" + f32("[2]", "[0,8]") + ",\"b\":" + f32("[1]", "[4,8]") + "}", d8), "overlap"},
      {"twice the same bytes", with_length("{\"a\":" + f32("[1]", "[0,4]") + ",\"b\":" + f32("[1]", "[0,4]") + "}", d4),
       "overlap"},
      {"end before begin", one(f32("[1]", "[4,0]")), "overlap"},
      {"product of the shape wraps to 4", one(f32("[4611686018427387905]", "[0,4]")), "does not fit"},
      {"product of many wraps to 0", one(f32("[4294967296,4294967296]", "[0,0]"), ""), "does not fit"},
      {"dimension above int64", one(f32("[9223372036854775808]", "[0,4]")), "a dimension of"},
      {"size of another dtype", one(entry("F64", "[1]", "[0,4]")), "need 8"},
      {"size of another shape", one(f32("[2]", "[0,4]")), "need 8"},
      {"half a byte", one(entry("F4", "[1]", "[0,4]")), "whole bytes"},
      {"negative offset", one(f32("[1]", "[-4,0]")), "negative number"},
      {"negative dimension", one(f32("[-1]", "[0,4]")), "negative number"},
      {"float offset", one(f32("[1]", "[0,4.0]")), "no unsigned 64-bit integer"},
      {"offset in exponent form", one(f32("[1]", "[0,4e0]")), "no unsigned 64-bit integer"},
      {"20-digit offset", one(f32("[1]", "[0,18446744073709551616]")), "no unsigned 64-bit integer"},
      {"string offset", one(f32("[1]", "[0,\"4\"]")), "found a string"},
      {"null offset", one(f32("[1]", "[0,null]")), "found null"},
      {"one offset", one(f32("[1]", "[0]")), "expected 2"},
      {"three offsets", one(f32("[1]", "[0,4,8]")), "expected 2"},
      {"no dtype", one(R"({"shape":[1],"data_offsets":[0,4]})"), "is missing"},
      {"no shape", one(R"({"dtype":"F32","data_offsets":[0,4]})"), "is missing"},
      {"no offsets", one(R"({"dtype":"F32","shape":[1]})"), "is missing"},
      {"unknown key", one(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1})"), "unknown key"},
      {"unknown dtype", one(entry("F33", "[1]", "[0,4]")), "unknown dtype"},
      {"dtype is a number", one(R"({"dtype":1,"shape":[1],"data_offsets":[0,4]})"), "found a number"},
      {"dtype is an array", one(R"({"dtype":["F32"],"shape":[1],"data_offsets":[0,4]})"), "found an array"},
      {"shape is a number", one(R"({"dtype":"F32","shape":1,"data_offsets":[0,4]})"), "found a number"},
      {"shape in a shape", one(f32("[[1]]", "[0,4]")), "found an array"},
      {"17 dimensions", one(f32("[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "[0,4]")), "more than 16"},
      {"entry is a number", with_length("{\"a\":1}", ""), "found a number"},
      {"entry is a list", with_length("{\"a\":[]}", ""), "found an array"},
      {"duplicate tensor", with_length("{\"a\":" + f32("[1]", "[0,4]") + ",\"a\":" + f32("[1]", "[0,4]") + "}", d4),
       "duplicate name"},
      {"duplicate key in an entry", one(R"({"dtype":"F32","dtype":"I32","shape":[1],"data_offsets":[0,4]})"),
       "duplicate key"},
      {"duplicate offsets", one(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4],"data_offsets":[0,4]})"),
       "duplicate key"},
      {"metadata twice", with_length(R"({"__metadata__":{},"__metadata__":{}})", ""), "duplicate name"},
      {"metadata value is a number", with_length(R"({"__metadata__":{"a":1}})", ""), "found a number"},
      {"metadata value is an object", with_length(R"({"__metadata__":{"a":{}}})", ""), "found an object"},
      {"metadata is a string", with_length(R"({"__metadata__":"x"})", ""), "found a string"},
      {"duplicate key in metadata", with_length(R"({"__metadata__":{"a":"1","a":"2"}})", ""), "duplicate key"},
      {"NUL in a name", with_length("{\"a\\u0000b\":" + f32("[1]", "[0,4]") + "}", d4), "NUL"},
      {"depth of a million", with_length("{\"a\":" + std::string(1'000'000, '['), ""), "found an array"},
      {"depth of objects",
       with_length(
           "{\"a\":" +
               [] {
                 std::string s;
                 for (int i = 0; i < 100'000; ++i) s += "{\"a\":";
                 return s;
               }(),
           ""),
       "unknown key"},
      {"a name of 2 MiB", with_length("{\"" + std::string(2 << 20, 'a') + "\":" + f32("[1]", "[0,4]") + "}", d4),
       "longer than 1 MiB"},
      {"two million blanks", with_length("{" + std::string(2 << 20, ' ') + "}", ""), "longer than 1 MiB"},
      {"200,000 tensors",
       with_length(
           [&] {
             std::string header = "{";
             for (int i = 0; i < 200'000; ++i)
               header += (i ? ",\"" : "\"") + std::to_string(i) + "\":" + f32("[0]", "[0,0]");
             return header + "}";
           }(),
           ""),
       "more than 131072 tensors"},
  };
}

TEST(Safetensors, RefusesEveryMaliciousFileWithItsOwnMessage) {
  const auto files = malicious_files();
  EXPECT_GE(files.size(), 40u);
  for (const Malicious& m : files) {
    const std::string message = refusal(m.bytes);
    EXPECT_NE(message.find(m.message), std::string::npos) << m.what << ": \"" << message << "\"";
  }
}

TEST(Safetensors, AcceptsWhatTheFormatAllows) {
  const std::string d4(4, 'x');
  EXPECT_EQ(refusal(with_length("{}", "")), "");
  EXPECT_EQ(refusal(with_length("{}      ", "")), "");
  EXPECT_EQ(refusal(with_length(R"({"__metadata__":{"format":"pt","":""}})", "")), "");
  EXPECT_EQ(refusal(with_length("{\"a\":" + entry("F32", "[]", "[0,4]") + "}", d4)), "");
  EXPECT_EQ(refusal(with_length("{\"a\":" + entry("F32", "[0,4611686018427387904]", "[0,0]") + "}", "")), "");
  EXPECT_EQ(refusal(with_length("{\"../a\\n\xc3\xa9\":" + entry("I32", "[1,1]", "[0,4]") + "}", d4)), "");
  EXPECT_EQ(
      refusal(with_length("{\"b\":" + entry("U8", "[3]", "[1,4]") + ",\"a\":" + entry("U8", "[1]", "[0,1]") + "}", d4)),
      "");
}

TEST(Safetensors, AnUnsupportedDtypeIsAnErrorOnlyWhenItsTensorIsRead) {
  const ScratchFolder scratch;
  std::ofstream(scratch / "x.safetensors", std::ios::binary) << with_length(
      "{\"a\":" + entry("F8_E4M3", "[4]", "[0,4]") + ",\"b\":" + entry("U8", "[1]", "[4,5]") + "}", "12345");
  const SafetensorsFile file(scratch / "x.safetensors");
  EXPECT_EQ(file.read("b").item<int64_t>(), '5');
  EXPECT_THROW(file.read("a"), std::runtime_error);
  EXPECT_THROW(file.view("a"), std::runtime_error);
  EXPECT_THROW(file.read("c"), std::runtime_error);
}

TEST(Safetensors, AFileCutShortWhileItIsOpenIsAnError) {
  const ScratchFolder scratch;
  const auto path = scratch / "x.safetensors";
  save_safetensors(real_disk(), path, {{"a", at::ones({1000})}, {"b", at::ones({1000})}});
  const SafetensorsFile file(path);
  std::filesystem::resize_file(path, 4500);
  EXPECT_TRUE(at::equal(file.read("a"), at::ones({1000})));
  EXPECT_THROW(file.read("b"), std::runtime_error);
  EXPECT_THROW(file.view("b"), std::runtime_error);
}

TEST(Safetensors, MutatedHeadersNeverCrash) {
  std::mt19937_64 random(fuzz::seed(5));
  const std::string valid = R"({"__metadata__":{"format":"pt"},"a":)" + entry("F32", "[2,3]", "[0,24]") +
                            ",\"b\":" + entry("BF16", "[4]", "[24,32]") + "}";
  const std::string characters = "{}[]\":,0123456789-.eE \\untrfalsnFBIU\xff";
  int accepted = 0;
  for (uint64_t i = fuzz::inputs(60'000); i > 0; --i) {
    std::string text = valid;
    for (uint64_t edits = 1 + random() % 3; edits > 0; --edits) {
      const std::size_t at = random() % text.size();
      switch (random() % 3) {
        case 0:
          text[at] = characters[random() % characters.size()];
          break;
        case 1:
          text.erase(at, 1 + random() % 4);
          break;
        default:
          text.insert(at, 1, characters[random() % characters.size()]);
      }
      if (text.empty()) text = "{";
    }
    try {
      const auto header = parse_safetensors_header(text, 8 + text.size() + 32, "m");
      uint64_t bytes = 0;
      for (const auto& [name, e] : header.tensors) bytes += e.end - e.begin;
      ASSERT_EQ(bytes, 32u) << text;
      ++accepted;
    } catch (const std::runtime_error&) {
    }
  }
  EXPECT_GT(accepted, 100);  // changed names and the like
}

StateDict sample_state() {
  at::manual_seed(1);
  return {{"z", at::randn({3, 5})},
          {"half", at::randn({7}).to(at::kHalf)},
          {"bytes", at::randint(255, {5}, at::kByte)},
          {"long", at::randint(1000, {2, 2}, at::kLong)},
          {"int", at::randint(1000, {3}, at::kInt)},
          {"bf", at::randn({4, 4}).to(at::kBFloat16)},
          {"scalar", at::randn({})},
          {"none", at::empty({0, 3})},
          {"strided", at::randn({4, 6}).t()},
          {"flag", at::randn({5}) > 0}};
}

void expect_equal(const at::Tensor& a, const at::Tensor& b, const std::string& name) {
  EXPECT_EQ(a.scalar_type(), b.scalar_type()) << name;
  EXPECT_EQ(a.sizes(), b.sizes()) << name;
  EXPECT_TRUE(at::equal(a, b)) << name;
}

TEST(Safetensors, GivesBackWhatItWroteByCopyAndByView) {
  const ScratchFolder scratch;
  const StateDict state = sample_state();
  save_safetensors(real_disk(), scratch / "x.safetensors", state, {.metadata = {{"format", "pt"}, {"k", "v"}}});
  StateDict views;
  {
    const SafetensorsFile file(scratch / "x.safetensors");
    EXPECT_EQ(file.header().metadata.at("k"), "v");
    EXPECT_EQ(file.header().data_begin % 64, 0u);
    for (const auto& [name, tensor] : state) {
      expect_equal(file.read(name), tensor, name);
      views[name] = file.view(name);
    }
  }
  std::filesystem::remove(scratch / "x.safetensors");
  for (const auto& [name, tensor] : state) expect_equal(views.at(name), tensor, name);
  EXPECT_EQ(real_disk().list(scratch.path()).size(), 0u);
}

TEST(Safetensors, ConvertsWhileReadingAndWriting) {
  const ScratchFolder scratch;
  at::manual_seed(2);
  const StateDict state = {{"big", at::randn({1100, 1000})}, {"ids", at::arange(5)}};
  save_safetensors(real_disk(), scratch / "x.safetensors", state, {.dtype = at::kBFloat16});
  const SafetensorsFile file(scratch / "x.safetensors");
  expect_equal(file.read("big"), state.at("big").to(at::kBFloat16), "big");
  expect_equal(file.read("big", at::kFloat), state.at("big").to(at::kBFloat16).to(at::kFloat), "big");
  expect_equal(file.read("big", at::kHalf), state.at("big").to(at::kBFloat16).to(at::kHalf), "big");
  expect_equal(file.read("ids", at::kFloat), state.at("ids"), "ids");
}

TEST(Safetensors, ReadsTensorsInMemoryWithoutCopying) {
  const ScratchFolder scratch;
  const StateDict state = sample_state();
  save_safetensors(real_disk(), scratch / "x.safetensors", state);
  auto bytes = std::make_shared<std::string>(read_file(real_disk(), scratch / "x.safetensors"));
  const auto whole = std::as_bytes(std::span(bytes->data(), bytes->size()));
  StateDict tensors = tensors_in(whole, bytes, "memory");
  bytes.reset();
  for (const auto& [name, tensor] : state) expect_equal(tensors.at(name), tensor, name);
}

TEST(SafetensorsFolder, ReadsWhatTransformersWrote) {
  const SafetensorsFolder single(kModels / "llama"), sharded(kModels / "llama_sharded_bf16");
  EXPECT_EQ(single.read("model.embed_tokens.weight").sizes(), (std::vector<int64_t>{199, 32}));
  EXPECT_EQ(sharded.tensors().size(), 20u);
  EXPECT_EQ(sharded.read("model.embed_tokens.weight").scalar_type(), at::kBFloat16);
}

TEST(SafetensorsFolder, ReadsTheShardsItWrote) {
  const ScratchFolder scratch;
  at::manual_seed(3);
  StateDict state;
  for (int i = 0; i < 20; ++i) state["t" + std::to_string(i)] = at::randn({10, i + 1});
  save_sharded(real_disk(), scratch.path(), "model", state, {}, 2000);
  EXPECT_GT(real_disk().list(scratch.path()).size(), 4u);
  const SafetensorsFolder folder(scratch.path());
  ASSERT_EQ(folder.tensors().size(), state.size());
  for (const auto& [name, tensor] : state) expect_equal(folder.read(name), tensor, name);
}

TEST(SafetensorsFolder, RefusesAnIndexThatLies) {
  const ScratchFolder scratch;
  save_safetensors(real_disk(), scratch / "a.safetensors", {{"x", at::ones({2})}, {"y", at::ones({2})}});
  save_safetensors(real_disk(), scratch / "b.safetensors", {{"z", at::ones({2})}});
  const auto with_index = [&](const std::string& map) {
    std::ofstream(scratch / "model.safetensors.index.json") << "{\"metadata\":{},\"weight_map\":" << map << "}";
    try {
      SafetensorsFolder folder(scratch.path());
    } catch (const std::exception& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  EXPECT_EQ(with_index(R"({"x":"a.safetensors","y":"a.safetensors","z":"b.safetensors"})"), "");
  for (const char* map :
       {R"({"x":"a.safetensors","z":"b.safetensors"})", R"({"x":"a.safetensors","y":"b.safetensors"})",
        R"({"x":"../a.safetensors","y":"a.safetensors"})", R"({"x":"/etc/passwd"})", R"({"x":".."})", R"({"x":""})",
        R"({"x":1})", R"({"x":"a.safetensors","y":"a.safetensors","w":"a.safetensors"})", R"({"x":"none"})",
        R"({"x":"a.safetensors","x":"a.safetensors"})", "[]", "1"})
    EXPECT_NE(with_index(map), "") << map;
  std::filesystem::remove(scratch / "model.safetensors.index.json");
  EXPECT_THROW(SafetensorsFolder folder(scratch.path()), std::runtime_error);
}

}  // namespace
}  // namespace troupe
