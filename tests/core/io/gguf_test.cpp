#include "core/io/gguf.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <random>

#include "core/io/gguf_model.hpp"
#include "core/io/model_folder.hpp"
#include "core/io/safetensors.hpp"
#include "tests/core/io/scratch_folder.hpp"
#include "tests/support/fuzz.hpp"

namespace troupe {
namespace {

const std::filesystem::path kData = TROUPE_SOURCE_DIR "/tests/oracles/data/io";

// Builds GGUF bytes field by field.
struct Writer {
  std::string bytes;
  template <class T>
  Writer& number(T value) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  Writer& text(const std::string& s) {
    number<uint64_t>(s.size());
    bytes += s;
    return *this;
  }
  static Writer start(uint64_t tensors, uint64_t keys, uint32_t version = 3) {
    Writer w;
    w.bytes = "GGUF";
    return w.number(version).number(tensors).number(keys);
  }
  Writer& tensor(const std::string& name, std::vector<uint64_t> dims, uint32_t type, uint64_t offset) {
    text(name).number<uint32_t>(static_cast<uint32_t>(dims.size()));
    for (const uint64_t d : dims) number(d);
    return number(type).number(offset);
  }
  Writer& data(std::size_t n) {
    bytes.resize((bytes.size() + 31) / 32 * 32);
    bytes.append(n, '\1');
    return *this;
  }
};

std::string refusal(const std::string& bytes) {
  const ScratchFolder scratch;
  const auto path = scratch / "x.gguf";
  std::ofstream(path, std::ios::binary) << bytes;
  try {
    const GgufFile file(path);
    for (const auto& [name, tensor] : file.tensors()) {
      int64_t n = 1;
      for (const int64_t d : tensor.shape) n *= d;
      std::vector<float> values(static_cast<std::size_t>(n));
      file.read(name, values);
    }
  } catch (const std::runtime_error& e) {
    EXPECT_NE(std::string(e.what()).find("x.gguf"), std::string::npos) << e.what();
    return e.what();
  }
  return "";
}

TEST(GgufQuants, EveryTypeGivesTheBitsOfTheGgufPackage) {
  const SafetensorsFile oracle(kData / "gguf_blocks.safetensors");
  int types = 0;
  for (uint32_t type = 0; type < 64; ++type) {
    const auto traits = gguf_type_traits(type);
    if (!traits) continue;
    const std::string name(traits->name);
    const at::Tensor bytes = oracle.read(name + ".bytes"), expected = oracle.read(name + ".values");
    std::vector<float> values(static_cast<std::size_t>(expected.numel()), -1);
    dequantize(static_cast<GgufType>(type),
               {static_cast<const std::byte*>(bytes.const_data_ptr()), static_cast<std::size_t>(bytes.numel())},
               values);
    for (std::size_t i = 0; i < values.size(); ++i)
      ASSERT_EQ(values[i], expected.const_data_ptr<float>()[i]) << name << " element " << i;
    ++types;
  }
  EXPECT_EQ(types, 11);
}

TEST(GgufQuants, RefusesBytesThatAreNoWholeBlocks) {
  std::vector<std::byte> bytes(36);
  std::vector<float> values(64);
  EXPECT_NO_THROW(dequantize(GgufType::kQ4_0, bytes, values));
  EXPECT_THROW(dequantize(GgufType::kQ4_0, std::span(bytes).first(35), values), std::invalid_argument);
  EXPECT_THROW(dequantize(GgufType::kQ4_0, bytes, std::span(values).first(63)), std::invalid_argument);
}

TEST(Gguf, WeightsAreWhatTransformersReads) {
  for (const char* family : {"llama", "qwen2", "qwen3"}) {
    const LoadedModel model = load_model(kData / (std::string(family) + ".gguf"), at::kFloat);
    EXPECT_EQ(model.config.family, family);
    EXPECT_EQ(model.source, ModelSource::kGguf);
    const SafetensorsFile expected(kData / (std::string(family) + ".safetensors"));
    ASSERT_EQ(model.weights.size(), expected.header().tensors.size());
    for (const auto& [name, tensor] : model.weights)
      EXPECT_TRUE(at::equal(tensor, expected.read(name))) << family << " " << name;
  }
}

TEST(Gguf, ConfigurationIsTheHuggingFaceFoldersOwn) {
  for (const auto& [gguf, folder] : {std::pair("qwen2", "qwen2"), std::pair("qwen3", "qwen3")}) {
    const DecoderConfig a = load_config(kData / (std::string(gguf) + ".gguf"));
    const DecoderConfig b = load_config(TROUPE_SOURCE_DIR "/tests/oracles/data/models/" + std::string(folder));
    EXPECT_EQ(format_hf_config(a, at::kFloat, false), format_hf_config(b, at::kFloat, false));
    EXPECT_EQ(a.eos_tokens, b.eos_tokens);
  }
}

TEST(Gguf, RefusesWhatDoesNotFitTheFile) {
  const auto one_tensor = [](std::vector<uint64_t> dims, uint32_t type, uint64_t offset, std::size_t bytes) {
    return Writer::start(1, 0).tensor("a", std::move(dims), type, offset).data(bytes).bytes;
  };
  const auto one_key = [](uint32_t type, const Writer& value) {
    return Writer::start(0, 1).text("k").number(type).bytes + value.bytes;
  };
  EXPECT_EQ(refusal(one_tensor({4}, 0, 0, 16)), "");
  EXPECT_EQ(refusal(Writer::start(0, 0, 2).bytes), "");
  const std::pair<std::string, const char*> cases[] = {
      {"", "ends inside its header"},
      {"GGML", "does not begin with GGUF"},
      {Writer::start(0, 0, 1).bytes, "version 1"},
      {Writer::start(0, 0, 4).bytes, "version 4"},
      {Writer::start(0, 0, 0x03000000).bytes, "big-endian"},
      {Writer::start(UINT64_MAX, 0).bytes, "tensors, more than"},
      {Writer::start(0, UINT64_MAX).bytes, "keys, more than"},
      {Writer::start(1, 0).bytes, "more than"},
      {one_key(8, Writer().number(UINT64_MAX)), "a string of 18446744073709551615"},
      {one_key(8, Writer().number<uint64_t>(1000)), "ends inside its header"},
      {one_key(99, Writer()), "unknown value type 99"},
      {one_key(7, Writer().number<uint8_t>(2)), "a boolean of value 2"},
      {one_key(9, Writer().number<uint32_t>(9).number<uint64_t>(1)), "an array of value type 9"},
      {one_key(9, Writer().number<uint32_t>(77).number<uint64_t>(1)), "an array of value type 77"},
      {one_key(9, Writer().number<uint32_t>(0).number(UINT64_MAX)), "an array of 18446744073709551615"},
      {one_key(9, Writer().number<uint32_t>(8).number<uint64_t>(1u << 24)), "an array of 16777216"},
      {Writer::start(0, 2)
           .text("k")
           .number<uint32_t>(0)
           .number<uint8_t>(1)
           .text("k")
           .number<uint32_t>(0)
           .number<uint8_t>(1)
           .bytes,
       "stands twice"},
      {one_tensor({}, 0, 0, 16), "0 dimensions"},
      {one_tensor({1, 1, 1, 1, 1}, 0, 0, 16), "5 dimensions"},
      {one_tensor({0}, 0, 0, 16), "a dimension of 0"},
      {one_tensor({uint64_t{1} << 62, 8}, 0, 0, 16), "a dimension of 8"},
      {one_tensor({uint64_t{1} << 62}, 0, 0, 16), "64 bits"},
      {one_tensor({UINT64_MAX}, 0, 0, 16), "a dimension of"},
      {one_tensor({4}, 20, 0, 16), "ggml type 20"},
      {one_tensor({33}, 2, 0, 64), "no multiple of Q4_0's block"},
      {one_tensor({4}, 0, 32, 16), "outside the file"},
      {one_tensor({4}, 0, 8, 64), "misaligned"},
      {one_tensor({4}, 0, UINT64_MAX - 31, 64), "outside the file"},
      {one_tensor({5}, 0, 0, 16), "outside the file"},
      {Writer::start(2, 0).tensor("a", {16}, 0, 0).tensor("b", {16}, 0, 32).data(128).bytes, "overlap"},
      {Writer::start(2, 0).tensor("a", {4}, 0, 0).tensor("a", {4}, 0, 32).data(128).bytes, "stands twice"},
      {Writer::start(0, 1).text("general.alignment").number<uint32_t>(4).number<uint32_t>(0).bytes, "power of two"},
      {Writer::start(0, 1).text("general.alignment").number<uint32_t>(4).number<uint32_t>(24).bytes, "power of two"},
      {Writer::start(0, 1).text("general.alignment").number<uint32_t>(4).number<uint32_t>(1u << 31).bytes,
       "power of two"},
  };
  for (const auto& [bytes, message] : cases) {
    const std::string said = refusal(bytes);
    EXPECT_NE(said.find(message), std::string::npos) << message << ": \"" << said << "\"";
  }
}

TEST(Gguf, MutatedFilesNeverCrash) {
  at::set_num_threads(1);  // thousands of tiny models: starting threads for each would be most of the time
  const ScratchFolder scratch;
  const std::string valid = read_file(real_disk(), kData / "llama.gguf");
  std::mt19937_64 random(fuzz::seed(6));
  const uint64_t inputs = fuzz::inputs(1000);
  uint64_t refused = 0, read = 0;
  for (uint64_t i = 0; i < inputs; ++i) {
    std::string bytes = valid;
    const std::size_t reach = random() % 2 == 0 ? 200 : 1800;  // the header's front, or all of it
    for (uint64_t edits = 1 + random() % 3; edits > 0; --edits) {
      const std::size_t at = 4 + random() % reach;
      const uint64_t extreme[] = {0, 1, UINT64_MAX, uint64_t{1} << 63, uint64_t{1} << 32, random()};
      if (random() % 2 == 0)
        std::memcpy(bytes.data() + at, &extreme[random() % 6], 1 + random() % 8);
      else
        bytes[at] = static_cast<char>(bytes[at] ^ (1 << random() % 8));
    }
    if (random() % 8 == 0) bytes.resize(random() % bytes.size());
    const auto path = scratch / "m.gguf";
    std::ofstream(path, std::ios::binary) << bytes;
    try {
      load_model(path, at::kFloat);
      ++read;
    } catch (const std::runtime_error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, inputs * 6 / 10);
  EXPECT_GT(read, 10);  // what changed was a name or a number that nothing contradicts
}

TEST(Gguf, MetadataIsReadWithItsType) {
  const ScratchFolder scratch;
  Writer w = Writer::start(0, 5);
  w.text("f").number<uint32_t>(6).number(1e-5f);
  w.text("u").number<uint32_t>(10).number(UINT64_MAX);
  w.text("i").number<uint32_t>(5).number<int32_t>(-3);
  w.text("s").number<uint32_t>(9).number<uint32_t>(8).number<uint64_t>(2).text("a").text("b");
  w.text("b").number<uint32_t>(7).number<uint8_t>(1);
  std::ofstream(scratch / "x.gguf", std::ios::binary) << w.bytes;
  const GgufFile file(scratch / "x.gguf");
  EXPECT_EQ(file.get_number("f"), 1e-5);
  EXPECT_EQ(file.get_integer("i"), -3);
  EXPECT_EQ(file.get_number("i"), -3.0);
  EXPECT_EQ(file.find_strings("s"), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(file.find_bool("b"), true);
  EXPECT_FALSE(file.find_string("none").has_value());
  EXPECT_THROW(file.get_integer("u"), std::runtime_error);
  EXPECT_THROW(file.get_integer("f"), std::runtime_error);
  EXPECT_THROW(file.get_string("i"), std::runtime_error);
  EXPECT_THROW(file.get_string("none"), std::runtime_error);
}

// A file with a llama's metadata, width 64, 4 heads of 16, and what `more` adds (`keys` of them).
Writer llama_metadata(uint64_t keys, const Writer& more, uint64_t tensors) {
  Writer w = Writer::start(tensors, 8 + keys);
  w.text("general.architecture").number<uint32_t>(8).text("llama");
  for (const auto& [key, value] :
       {std::pair("block_count", 1u), std::pair("context_length", 131072u), std::pair("embedding_length", 64u),
        std::pair("feed_forward_length", 64u), std::pair("attention.head_count", 4u)})
    w.text(std::string("llama.") + key).number<uint32_t>(4).number<uint32_t>(value);
  w.text("llama.attention.layer_norm_rms_epsilon").number<uint32_t>(6).number(1e-5f);
  w.text("llama.rope.freq_base").number<uint32_t>(6).number(500000.0f);
  w.bytes += more.bytes;
  return w;
}

DecoderConfig config_of(const std::string& bytes) {
  const ScratchFolder scratch;
  std::ofstream(scratch / "x.gguf", std::ios::binary) << bytes;
  return gguf_config(GgufFile(scratch / "x.gguf"));
}

Writer scaling(const std::string& type) {
  Writer more;
  more.text("llama.rope.scaling.type").number<uint32_t>(8).text(type);
  more.text("llama.rope.scaling.factor").number<uint32_t>(6).number(4.0f);
  more.text("llama.rope.scaling.original_context_length").number<uint32_t>(4).number<uint32_t>(32768);
  return more;
}

TEST(Gguf, ReadsTheScalingOfRotaryFrequencies) {
  const auto with = [](const std::string& type) {
    return config_of(llama_metadata(3, scaling(type), 1).tensor("token_embd.weight", {64, 4}, 0, 0).data(1024).bytes)
        .rope;
  };
  EXPECT_EQ(with("none").type, "default");
  EXPECT_EQ(with("none").theta, 5e5);
  EXPECT_EQ(with("linear").type, "linear");
  EXPECT_EQ(with("linear").factor, 4.0);
  EXPECT_EQ(with("yarn").type, "yarn");
  EXPECT_EQ(with("yarn").original_max_positions, 32768);
  EXPECT_EQ(with("yarn").attention_factor, 0.0);
  EXPECT_THROW(with("longrope"), std::runtime_error);
}

// The divisors are those of transformers' _compute_llama3_parameters for theta 500000, 16 dimensions, factor 8, low 1,
// high 4, 8192 positions.
TEST(Gguf, RecoversLlama3ScalingAndRefusesOtherDivisors) {
  const auto with = [](std::vector<float> divisors) {
    Writer w = llama_metadata(0, {}, 2);
    w.tensor("token_embd.weight", {64, 4}, 0, 0).tensor("rope_freqs.weight", {8}, 0, 1024).data(1024);
    for (const float d : divisors) w.number(d);
    return config_of(w.bytes).rope;
  };
  const std::vector<float> divisors = {1, 1, 1, 1, 2.6945302486419678f, 8, 8, 8};
  const RopeConfig rope = with(divisors);
  EXPECT_EQ(rope.type, "llama3");
  EXPECT_EQ(rope.factor, 8.0);
  EXPECT_EQ(rope.original_max_positions, 8192);
  EXPECT_EQ(rope.low_freq_factor, 1.0);
  EXPECT_EQ(rope.high_freq_factor, 4.0);
  for (std::size_t i = 0; i < divisors.size(); ++i) {
    std::vector<float> other = divisors;
    other[i] *= 1.01f;
    EXPECT_THROW(with(other), std::runtime_error) << i;
  }
  EXPECT_THROW(with({1, 1, 1, 1, NAN, 8, 8, 8}), std::runtime_error);
}

}  // namespace
}  // namespace troupe
