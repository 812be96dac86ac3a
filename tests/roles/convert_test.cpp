#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/config.hpp"
#include "core/io/adapter_folder.hpp"
#include "core/io/pth.hpp"
#include "core/models/initial_weights.hpp"
#include "core/models/minimind.hpp"
#include "roles/chosen_model.hpp"
#include "tests/support/command.hpp"

namespace troupe {
namespace {

namespace fs = std::filesystem;

const fs::path kOracles = fs::path(TROUPE_SOURCE_DIR) / "tests/oracles/data";
const fs::path kModel = kOracles / "evaluate/model";

void expect_same(const StateDict& a, const StateDict& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, tensor] : a) {
    ASSERT_TRUE(b.contains(name)) << name;
    EXPECT_TRUE(at::equal(tensor, b.at(name))) << name;
  }
}

StateDict converted(const StateDict& weights, at::ScalarType dtype) {
  StateDict out;
  for (const auto& [name, tensor] : weights) out[name] = tensor.to(dtype);
  return out;
}

void expect_done(const std::vector<std::string>& arguments, const fs::path& folder) {
  const Ended ended = call(arguments, "", folder);
  EXPECT_EQ(ended.code, 0) << ended.err;
  EXPECT_NE(ended.out.find(" -> "), std::string::npos) << ended.out;
}

// A folder with what MiniMind's repository has: a tokenizer in model/, weights in out/.
class NativeFiles : public testing::Test {
 protected:
  NativeFiles() {
    fs::create_directories(folder_ / "model");
    fs::create_directories(folder_ / "out/lora");
    fs::copy(kModel / "tokenizer.json", folder_ / "model/tokenizer.json");
    write_text(folder_ / "model/tokenizer_config.json", R"({"eos_token": "<|im_end|>"})");
  }
  // Weights as MiniMind's trainers save them: float16, the tied matrix twice.
  StateDict put(const std::string& name, const DecoderConfig& config) {
    StateDict weights = converted(initial_weights(config, 3), at::kHalf);
    StateDict stored = weights;
    stored["lm_head.weight"] = stored.at("model.embed_tokens.weight");
    save_pth(real_disk(), folder_ / "out" / name, stored);
    return weights;
  }
  std::vector<std::string> words(const std::vector<std::string>& more) {
    std::vector<std::string> out{"convert", "--load_from", "model", "--hidden_size", "32", "--num_hidden_layers", "1"};
    out.insert(out.end(), more.begin(), more.end());
    return out;
  }
  void expect_refused(const std::vector<std::string>& more, const std::string& about) {
    const Ended ended = call(words(more), "", folder_.path());
    EXPECT_EQ(ended.code, 1);
    EXPECT_EQ(std::ranges::count(ended.err, '\n'), 1) << ended.err;
    EXPECT_NE(ended.err.find(about), std::string::npos) << ended.err;
  }
  ScratchFolder folder_;
};

TEST_F(NativeFiles, GoToAFolderAndBackUnchanged) {
  const DecoderConfig config = minimind_config(32, 1, false);
  const StateDict weights = put("full_sft_32.pth", config);
  expect_done(words({"--to", "hf"}), folder_.path());
  const LoadedModel folder = load_model(folder_ / "hf", at::kHalf);
  expect_same(folder.weights, weights);
  const Json json = parse_json_file(folder_ / "hf/config.json");
  EXPECT_EQ(json["model_type"], "llama");
  EXPECT_EQ(json["dtype"], "float16");
  EXPECT_EQ(json["rope_theta"], 1e6);
  EXPECT_TRUE(json["rope_scaling"].is_null());
  EXPECT_EQ(parse_json_file(folder_ / "hf/tokenizer_config.json"),
            Json({{"eos_token", "<|im_end|>"}, {"tokenizer_class", "PreTrainedTokenizerFast"}}));
  expect_done({"convert", "--load_from", "hf", "--to", "out/back_32.pth"}, folder_.path());
  StateDict back = read_pth(folder_ / "out/back_32.pth");
  EXPECT_TRUE(at::equal(back.at("lm_head.weight"), weights.at("model.embed_tokens.weight")));
  back.erase("lm_head.weight");
  expect_same(back, weights);
}

// Whose own tokenizer has another number of tokens.
TEST_F(NativeFiles, OfAnotherVocabularyGoToAFolderAndBackUnchanged) {
  DecoderConfig config = minimind_config(32, 1, false);
  config.vocab_size = 400;
  const StateDict weights = put("full_sft_32.pth", config);
  expect_done(words({"--to", "hf"}), folder_.path());
  expect_done({"convert", "--load_from", "hf", "--to", "out/back_32.pth"}, folder_.path());
  StateDict back = read_pth(folder_ / "out/back_32.pth");
  back.erase("lm_head.weight");
  expect_same(back, weights);
}

TEST_F(NativeFiles, OfExpertsGoToAFolderAndBackUnchanged) {
  const StateDict weights = put("full_sft_32_moe.pth", minimind_config(32, 1, true));
  expect_done(words({"--use_moe", "1", "--to", "hf"}), folder_.path());
  EXPECT_EQ(parse_json_file(folder_ / "hf/config.json")["model_type"], "minimind");
  expect_same(load_model(folder_ / "hf", at::kHalf).weights, weights);
  expect_done({"convert", "--load_from", "hf", "--to", "out/back_32_moe.pth"}, folder_.path());
  StateDict back = read_pth(folder_ / "out/back_32_moe.pth");
  back.erase("lm_head.weight");
  expect_same(back, weights);
}

TEST_F(NativeFiles, TakeAnAdapterAndStretchedPositions) {
  StateDict expected = converted(put("dpo_32.pth", minimind_config(32, 1, false)), at::kFloat);
  const std::string path = "model.layers.0.self_attn.o_proj";
  const at::Tensor a = at::randn({8, 32}).to(at::kHalf), b = at::randn({32, 8}).to(at::kHalf);
  save_pth(real_disk(), folder_ / "out/lora/lora_medical_32.pth",
           {{path + ".lora.A.weight", a}, {path + ".lora.B.weight", b}});
  expected[path + ".weight"] += at::matmul(b.to(at::kFloat), a.to(at::kFloat));
  expect_done(words({"--weight", "dpo", "--lora_weight", "lora_medical", "--inference_rope_scaling", "--dtype", "f32",
                     "--to", "hf"}),
              folder_.path());
  const LoadedModel folder = load_model(folder_ / "hf", at::kFloat);
  for (const auto& [name, tensor] : expected)
    EXPECT_TRUE(at::allclose(folder.weights.at(name), tensor, 1e-6, 1e-6)) << name;
  const Json rope = parse_json_file(folder_ / "hf/config.json")["rope_scaling"];
  EXPECT_EQ(rope["rope_type"], "yarn");
  EXPECT_EQ(rope["factor"], 16);
  EXPECT_EQ(rope["original_max_position_embeddings"], 2048);
  EXPECT_EQ(rope["beta_fast"], 32);
  EXPECT_EQ(rope["beta_slow"], 1);
  EXPECT_EQ(rope["attention_factor"], 1);
  expect_refused({"--weight", "dpo", "--inference_rope_scaling", "--to", "x.pth"},
                 "a .pth can't say that rotary positions are scaled");
}

TEST_F(NativeFiles, TakeAnAdapterOfTheForksForm) {
  StateDict expected = converted(put("dpo_32.pth", minimind_config(32, 1, false)), at::kFloat);
  const std::string path = "model.layers.0.self_attn.k_proj";
  const at::Tensor a = at::randn({32, 4}), b = at::randn({4, 8});
  save_pth(real_disk(), folder_ / "fork.pth", {{path + ".lora_A", a}, {path + ".lora_B", b}});
  expected[path + ".weight"] += 16.0 / 4 * at::matmul(a, b).t();
  expect_done(words({"--weight", "dpo", "--lora_weight", "fork.pth", "--dtype", "f32", "--to", "out/merged_32.pth"}),
              folder_.path());
  const StateDict merged = read_pth(folder_ / "out/merged_32.pth");
  EXPECT_EQ(merged.size(), expected.size() + 1);  // the tied matrix twice
  for (const auto& [name, tensor] : expected) EXPECT_TRUE(at::allclose(merged.at(name), tensor, 1e-5, 1e-5)) << name;
}

// The same model in both forms is the same model to those who use it.
TEST_F(NativeFiles, ComputeWhatTheirFolderComputes) {
  put("pretrain_32.pth", minimind_config(32, 1, false));
  expect_done(words({"--weight", "pretrain", "--to", "hf", "--dtype", "f32"}), folder_.path());
  const auto loss = [&](std::vector<std::string> words) {
    const std::string text = kOracles / "evaluate/text.txt";
    words.insert(words.begin(), {"eval", "--mode", "perplexity", "--data", text, "--output", "p.json", "--bos"});
    const Ended ended = call(words, "", folder_.path());
    EXPECT_EQ(ended.code, 0) << ended.err;
    return parse_json_file(folder_ / "p.json")["log_likelihood"].get<double>();
  };
  const std::vector<std::string> native{"--load_from",         "model", "--weight", "pretrain", "--hidden_size", "32",
                                        "--num_hidden_layers", "1"};
  EXPECT_EQ(loss(native), loss({"--load_from", "hf"}));
  std::vector<std::string> talk{"eval", "--mode", "manual", "--max_new_tokens", "8"};
  talk.insert(talk.end(), native.begin(), native.end());
  const Ended ended = call(talk, "Hello\n", folder_.path());
  EXPECT_EQ(ended.code, 0) << ended.err;
  EXPECT_NE(ended.out.find("out/pretrain_32.pth, 0.2 M parameters"), std::string::npos) << ended.out;
}

TEST_F(NativeFiles, OfAnotherShapeAreNamedWithTheFlags) {
  put("full_sft_32.pth", minimind_config(32, 2, false));
  expect_refused({"--to", "hf"}, "out/full_sft_32.pth: \"model.layers.1.");
  expect_refused({"--to", "hf"}, "--hidden_size 32 --num_hidden_layers 1 --use_moe 0 do not fit this file");
  write_text(folder_ / "out/full_sft_32.pth", "PK, but no more");
  expect_refused({"--to", "hf"}, "out/full_sft_32.pth");
  EXPECT_FALSE(fs::exists(folder_ / "hf"));
}

TEST(Convert, AFolderInAnotherPrecisionIsTheSameModelRounded) {
  ScratchFolder folder;
  const LoadedModel before = load_model(kModel, at::kFloat);
  for (const auto& [name, dtype] : {std::pair{"f32", at::kFloat}, {"bf16", at::kBFloat16}, {"f16", at::kHalf}}) {
    expect_done({"convert", "--load-from", kModel, "--to", name, "--dtype", name}, folder.path());
    expect_same(load_model(folder / name, dtype).weights, converted(before.weights, dtype));
    EXPECT_EQ(load_config(folder / name).max_positions, before.config.max_positions);
    EXPECT_EQ(text_of(folder / std::string(name) / "tokenizer.json"), text_of(kModel / "tokenizer.json"));
  }
  expect_done({"convert", "--load-from", kModel, "--to", "f32"},
              folder.path());  // replaced, bf16 unless said otherwise
  EXPECT_EQ(parse_json_file(folder / "f32/config.json")["dtype"], "bfloat16");
}

TEST(Convert, APeftAdapterIsMergedIn) {
  ScratchFolder folder;
  const LoadedModel base = load_model(kModel, at::kFloat);
  Adapter adapter{.lora = {.rank = 4, .alpha = 12, .target_modules = {"up_proj"}}, .base = "x", .weights = {}};
  StateDict expected = base.weights;
  for (const char* layer : {"model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj"}) {
    const std::string stem = std::string("base_model.model.") + layer;
    const at::Tensor a = at::randn({4, 32}), b = at::randn({48, 4});
    adapter.weights[stem + ".lora_A.weight"] = a;
    adapter.weights[stem + ".lora_B.weight"] = b;
    expected[std::string(layer) + ".weight"] = base.weights.at(std::string(layer) + ".weight") + 3 * at::matmul(b, a);
  }
  save_adapter(real_disk(), folder / "adapter", adapter, at::kFloat);
  expect_done({"convert", "--load-from", kModel, "--lora-weight", "adapter", "--to", "merged", "--dtype", "f32"},
              folder.path());
  const LoadedModel merged = load_model(folder / "merged", at::kFloat);
  for (const auto& [name, tensor] : expected)
    EXPECT_TRUE(at::allclose(merged.weights.at(name), tensor, 1e-5, 1e-5)) << name;
}

TEST(Convert, WhatCannotBeIsOneClearLine) {
  ScratchFolder folder;
  const auto refused = [&](const std::vector<std::string>& more, const std::string& about) {
    std::vector<std::string> words{"convert"};
    if (std::ranges::find(more, "--load-from") == more.end()) words.insert(words.end(), {"--load-from", kModel});
    words.insert(words.end(), more.begin(), more.end());
    const Ended ended = call(words, "", folder.path());
    EXPECT_EQ(ended.code, 1);
    EXPECT_EQ(std::ranges::count(ended.err, '\n'), 1) << ended.err;
    EXPECT_NE(ended.err.find(about), std::string::npos) << ended.err;
  };
  refused({"--to", "x.pth"}, "intermediate_size is 48, MiniMind's is 128; x.pth would not be read as this model");
  refused({"--to", "x", "--lora-weight", "nobody"}, "out/lora/nobody_32.pth: no such weights");
  LoadedModel large = load_model(kModel, at::kFloat);
  large.weights.at("model.norm.weight").mul_(1e6);
  save_model(real_disk(), folder / "large", large.config, large.weights, at::kFloat,
             [](const fs::path& aside) { fs::copy(kModel / "tokenizer.json", aside / "tokenizer.json"); });
  refused({"--load-from", "large", "--to", "x", "--dtype", "f16"}, "large: \"model.norm.weight\" holds ");
  EXPECT_FALSE(fs::exists(folder / "x"));
}

// Nothing of what a user keeps is lost: neither foreign files in the folder nor what is converted.
TEST_F(NativeFiles, WriteOverNoOtherFilesAndNotOverThemselves) {
  put("full_sft_32.pth", minimind_config(32, 1, false));
  expect_refused({"--to", "."}, "holds model, which is no part of a model; expected a new folder or one with a model");
  expect_refused({"--to", "out"}, "out holds full_sft_32.pth, which is no part of a model");
  expect_refused({"--to", "model"}, "--to model: is what is converted");
  expect_refused({"--to", "model/../out/full_sft_32.pth"}, "is what is converted");
  expect_done(words({"--to", "hf"}), folder_.path());
  const std::string before = text_of(folder_ / "hf/model.safetensors");
  for (const std::string to : {"hf", "hf/", "./hf"}) {
    const Ended ended = call({"convert", "--load-from", "hf", "--to", to, "--dtype", "bf16"}, "", folder_.path());
    EXPECT_EQ(ended.code, 1);
    EXPECT_EQ(ended.err, "troupe: --to " + to + ": is what is converted; expected another place\n");
  }
  EXPECT_EQ(text_of(folder_ / "hf/model.safetensors"), before);
  EXPECT_FALSE(fs::exists(folder_ / "model/config.json"));
}

TEST(TinyModel, IsMadeOverNoOtherFiles) {
  ScratchFolder folder;
  const std::vector<std::string> words{"data", "tiny-model", "--steps", "0", "--hidden", "16", "--to", "tiny"};
  for (int i = 0; i < 2; ++i) {  // over its own output as well
    const Ended ended = call(words, "", folder.path());
    EXPECT_EQ(ended.code, 0) << ended.err;
  }
  write_text(folder / "tiny/notes.txt", "mine");
  const Ended ended = call(words, "", folder.path());
  EXPECT_EQ(ended.code, 1);
  EXPECT_NE(ended.err.find("tiny holds notes.txt, which is no part of a model"), std::string::npos) << ended.err;
  EXPECT_EQ(text_of(folder / "tiny/notes.txt"), "mine");
}

// ---- for open_converted.py ------------------------------------------------------------------------------------------

// Converts a model in every way into the folder that the environment names; the Python test opens the results.
TEST(OpenConverted, FoldersAreWritten) {
  const char* out = std::getenv("TROUPE_OPEN_CONVERTED_FOLDER");
  if (out == nullptr) GTEST_SKIP() << "TROUPE_OPEN_CONVERTED_FOLDER is not set";
  const fs::path root = out;
  fs::remove_all(root);
  fs::create_directories(root / "model");
  for (const auto& file : fs::directory_iterator(kModel))
    if (file.path().filename().string().find("token") != std::string::npos || file.path().extension() == ".jinja")
      fs::copy(file.path(), root / "model" / file.path().filename());
  fs::remove(root / "model/tokenizer_config.json");  // as from a GGUF: the class must be named by us
  StateDict weights = converted(initial_weights(minimind_config(32, 2, false), 4), at::kHalf);
  weights["lm_head.weight"] = weights.at("model.embed_tokens.weight");
  save_pth(real_disk(), root / "native_32.pth", weights);
  const std::vector<std::string> native{"convert", "--load_from",   "model", "--save_dir",          ".", "--weight",
                                        "native",  "--hidden_size", "32",    "--num_hidden_layers", "2"};
  const auto with = [](std::vector<std::string> words, const std::vector<std::string>& more) {
    words.insert(words.end(), more.begin(), more.end());
    return words;
  };
  expect_done({"convert", "--load-from", kModel, "--to", "same", "--dtype", "f32"}, root);
  expect_done(with(native, {"--to", "minimind"}), root);
  expect_done(with(native, {"--to", "minimind_yarn", "--inference_rope_scaling"}), root);
  expect_done({"convert", "--load-from", "minimind", "--to", "back_32.pth"}, root);
}

}  // namespace
}  // namespace troupe
