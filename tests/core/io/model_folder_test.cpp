#include "core/io/model_folder.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "core/config.hpp"
#include "core/io/adapter_folder.hpp"
#include "core/io/safetensors.hpp"
#include "core/models/minimind.hpp"
#include "tests/core/io/memory_disk.hpp"
#include "tests/core/io/scratch_folder.hpp"

namespace troupe {
namespace {

const std::filesystem::path kModels = TROUPE_SOURCE_DIR "/tests/oracles/data/models";
const std::filesystem::path kGguf = TROUPE_SOURCE_DIR "/tests/oracles/data/io";

std::string config_text(const Json& changes, const std::string& base = "llama") {
  Json json = parse_json_file(kModels / base / "config.json");
  json.merge_patch(changes);
  return json.dump();
}

DecoderConfig config_with(const Json& changes, const std::string& base = "llama", const std::string& generation = "") {
  return parse_hf_config(config_text(changes, base), generation, "config.json");
}

std::string config_error(const Json& changes, const std::string& base = "llama") {
  try {
    config_with(changes, base);
  } catch (const std::exception& e) {
    return e.what();
  }
  return "";
}

TEST(HfConfig, ReadsTheFamilies) {
  const DecoderConfig llama = load_config(kModels / "llama"), qwen2 = load_config(kModels / "qwen2"),
                      qwen3 = load_config(kModels / "qwen3"), bias = load_config(kModels / "llama_bias");
  EXPECT_EQ(llama.vocab_size, 199);
  EXPECT_EQ(llama.hidden_size, 32);
  EXPECT_EQ(llama.num_kv_heads, 2);
  EXPECT_EQ(llama.head_dim, 8);
  EXPECT_EQ(llama.rms_norm_eps, 1e-5);
  EXPECT_FALSE(llama.tie_embeddings || llama.qkv_bias || llama.o_bias || llama.mlp_bias || llama.qk_norm);
  EXPECT_EQ(llama.eos_tokens, std::vector<int64_t>{2});
  EXPECT_TRUE(qwen2.tie_embeddings && qwen2.qkv_bias && !qwen2.o_bias);
  EXPECT_EQ(qwen2.rope.theta, 1e6);
  EXPECT_TRUE(qwen3.qk_norm && !qwen3.qkv_bias);
  EXPECT_EQ(qwen3.head_dim, 16);
  EXPECT_TRUE(bias.qkv_bias && bias.o_bias && bias.mlp_bias);
}

TEST(HfConfig, ReadsRopeInTheFormsOfTransformers4And5) {
  const RopeConfig yarn = load_config(kModels / "rope_yarn").rope;
  EXPECT_EQ(yarn.type, "yarn");
  EXPECT_EQ(yarn.factor, 4.0);
  EXPECT_EQ(yarn.original_max_positions, 16);
  const Json old = {{"rope_parameters", nullptr},
                    {"rope_theta", 5e5},
                    {"rope_scaling",
                     {{"rope_type", "llama3"},
                      {"factor", 8.0},
                      {"low_freq_factor", 1.0},
                      {"high_freq_factor", 4.0},
                      {"original_max_position_embeddings", 8192}}}};
  const RopeConfig llama3 = config_with(old).rope;
  EXPECT_EQ(llama3.type, "llama3");
  EXPECT_EQ(llama3.theta, 5e5);
  EXPECT_EQ(llama3.original_max_positions, 8192);
  const Json older = {{"rope_parameters", nullptr}, {"rope_scaling", {{"type", "linear"}, {"factor", 2}}}};
  EXPECT_EQ(config_with(older).rope.type, "linear");
  EXPECT_EQ(config_with(older).rope.factor, 2.0);
  EXPECT_EQ(config_with({{"rope_parameters", nullptr}}).rope.theta, 1e4);
}

TEST(HfConfig, TheGenerationConfigsEndTokensWin) {
  EXPECT_EQ(config_with(Json::object(), "llama", R"({"eos_token_id":[7,9]})").eos_tokens, (std::vector<int64_t>{7, 9}));
  EXPECT_EQ(config_with(Json::object(), "llama", "{}").eos_tokens, std::vector<int64_t>{2});
  EXPECT_TRUE(config_with({{"eos_token_id", nullptr}}).eos_tokens.empty());
}

TEST(HfConfig, MiniMindsMissingFieldsAreItsDefaults) {
  const DecoderConfig c =
      parse_hf_config(R"({"model_type":"minimind","hidden_size":768,"num_hidden_layers":16})", "", "c");
  EXPECT_EQ(c.vocab_size, 6400);
  EXPECT_EQ(c.intermediate_size, 2048);
  EXPECT_EQ(c.num_kv_heads, 2);
  EXPECT_EQ(c.head_dim, 96);
  EXPECT_EQ(c.rope.theta, 1e6);
  EXPECT_TRUE(c.tie_embeddings);
  EXPECT_EQ(c.moe.experts, 0);
  EXPECT_EQ(c.bos_token, 1);
  EXPECT_EQ(c.eos_tokens, std::vector<int64_t>{2});
  const DecoderConfig shape = minimind_config(768, 16, false);
  EXPECT_EQ(format_hf_config(c, at::kFloat, false), format_hf_config(shape, at::kFloat, false));

  const std::string moe = R"({"model_type":"minimind","hidden_size":640,"num_hidden_layers":8,"use_moe":true)";
  for (const bool yarn : {false, true}) {
    const DecoderConfig read = parse_hf_config(moe + (yarn ? R"(,"inference_rope_scaling":true})" : "}"), "", "c");
    EXPECT_EQ(format_hf_config(read, at::kFloat, false),
              format_hf_config(minimind_config(640, 8, true, yarn), at::kFloat, false));
  }
}

TEST(HfConfig, ExpertsAreReadAndWrittenUnderMiniMindsNames) {
  const Json experts = {{"model_type", "minimind"}, {"use_moe", true},           {"n_routed_experts", 6},
                        {"num_experts_per_tok", 3}, {"n_shared_experts", 0},     {"norm_topk_prob", false},
                        {"aux_loss_alpha", 0.1},    {"scoring_func", "softmax"}, {"seq_aux", false}};
  const DecoderConfig c = config_with(experts);
  EXPECT_EQ(c.moe.experts, 6);
  EXPECT_EQ(c.moe.per_token, 3);
  EXPECT_EQ(c.moe.shared_experts, 0);
  EXPECT_FALSE(c.moe.normalise || c.moe.per_sequence);
  EXPECT_EQ(c.moe.aux_coefficient, 0.1);
  const Json written = parse_json(format_hf_config(c, at::kFloat, false), "x");
  for (const auto& [key, value] : experts.items()) EXPECT_EQ(written[key], value) << key;
  EXPECT_EQ(written["architectures"][0], "MiniMindForCausalLM");

  const auto error = [&](const char* key, const Json& value) {
    Json changed = experts;
    changed[key] = value;
    return config_error(changed);
  };
  EXPECT_NE(error("num_experts_per_tok", 7).find("num_experts_per_tok: expected an integer from 1 to 6"),
            std::string::npos);
  EXPECT_NE(error("n_routed_experts", 1'000'000).find("n_routed_experts: expected an integer from 1 to 64"),
            std::string::npos);
  EXPECT_NE(error("n_shared_experts", -1).find("n_shared_experts: expected an integer from 0"), std::string::npos);
  EXPECT_NE(error("aux_loss_alpha", -1).find("aux_loss_alpha: expected a number of at least 0"), std::string::npos);
  EXPECT_NE(error("scoring_func", "sigmoid").find("scoring_func: only \"softmax\""), std::string::npos);
  EXPECT_NE(error("model_type", "llama").find("use_moe: only minimind has experts"), std::string::npos);
}

TEST(HfConfig, RefusesWhatItCannotExpressAndNamesTheKey) {
  const std::pair<Json, const char*> cases[] = {
      {{{"model_type", "mamba"}}, "model_type: \"mamba\" is not supported"},
      {{{"model_type", nullptr}}, "model_type: missing"},
      {{{"hidden_act", "gelu"}}, "hidden_act"},
      {{{"hidden_size", nullptr}}, "hidden_size: missing"},
      {{{"hidden_size", 0}}, "hidden_size: expected an integer from 1"},
      {{{"hidden_size", -5}}, "hidden_size: expected an integer from 1"},
      {{{"hidden_size", 32.5}}, "hidden_size: expected an integer, found number 32.5"},
      {{{"hidden_size", "32"}}, "hidden_size: expected an integer, found string"},
      {{{"num_hidden_layers", 1'000'000'000}}, "num_hidden_layers: expected an integer from 1 to 4096"},
      {{{"num_key_value_heads", 3}}, "num_key_value_heads: expected a divisor"},
      {{{"head_dim", 7}}, "head_dim: expected an even number"},
      {{{"use_sliding_window", true}}, "use_sliding_window"},
      {{{"quantization_config", {{"bits", 4}}}}, "quantization_config"},
      {{{"partial_rotary_factor", 0.5}}, "partial_rotary_factor"},
      {{{"layer_types", {"sliding_attention"}}}, "layer_types"},
      {{{"eos_token_id", -1}}, "eos_token_id: expected a token id"},
      {{{"eos_token_id", {{"a", 1}}}}, "eos_token_id: expected a token id"},
      {{{"rope_parameters", {{"rope_type", "longrope"}}}}, "rope_parameters.rope_type: \"longrope\" is not supported"},
      {{{"rope_parameters", {{"rope_type", "linear"}}}}, "rope_parameters.factor: missing"},
      {{{"rope_parameters", {{"rope_type", "linear"}, {"factor", 0.5}}}}, "rope_parameters.factor"},
      {{{"rope_parameters", {{"rope_type", "llama3"}, {"factor", 8}}}}, "low_freq_factor"},
      {{{"rope_parameters", {{"rope_theta", -1}}}}, "rope_theta"},
      {{{"rope_parameters", {{"full_attention", {{"rope_theta", 1}}}}}}, "per kind of layer"},
      {{{"rope_parameters", 5}}, "rope_parameters: expected an object"},
  };
  for (const auto& [changes, message] : cases) {
    const std::string said = config_error(changes);
    EXPECT_NE(said.find(message), std::string::npos) << changes << ": \"" << said << "\"";
    EXPECT_EQ(said.rfind("config.json: ", 0), 0u) << said;
  }
  EXPECT_THROW(parse_hf_config("[]", "", "c"), std::runtime_error);
  EXPECT_THROW(parse_hf_config("{", "", "c"), std::invalid_argument);
}

TEST(HfConfig, WhatItWritesIsWhatItReads) {
  for (const auto& folder : std::filesystem::directory_iterator(kModels)) {
    const DecoderConfig a = load_config(folder.path());
    const std::string text = format_hf_config(a, at::kFloat, false);
    const DecoderConfig b = parse_hf_config(text, "", "c");
    EXPECT_EQ(format_hf_config(b, at::kFloat, false), text) << folder;
    EXPECT_EQ(b.family, a.family);
    EXPECT_EQ(b.eos_tokens, a.eos_tokens);
    EXPECT_EQ(b.rope.original_max_positions, a.rope.original_max_positions);
    EXPECT_EQ(b.tie_embeddings, a.tie_embeddings);
    EXPECT_EQ(b.qkv_bias, a.qkv_bias);
  }
}

TEST(LoadModel, ReadsEveryTinyModelWhole) {
  int count = 0;
  for (const auto& folder : std::filesystem::directory_iterator(kModels)) {
    const LoadedModel model = load_model(folder.path(), at::kFloat);
    const SafetensorsFolder files(folder.path());
    EXPECT_EQ(model.weights.size(), files.tensors().size()) << folder;
    for (const auto& [name, tensor] : model.weights)
      EXPECT_TRUE(at::equal(tensor, files.read(name).to(at::kFloat))) << folder << name;
    ++count;
  }
  EXPECT_GE(count, 10);
  const LoadedModel half = load_model(kModels / "llama", at::kBFloat16);
  EXPECT_EQ(half.weights.begin()->second.scalar_type(), at::kBFloat16);
  EXPECT_THROW(load_model(kModels / "llama", at::kInt), std::invalid_argument);
}

TEST(LoadModel, FindsWhatAPathIs) {
  const ScratchFolder scratch;
  EXPECT_THROW(resolve_model(scratch / "none"), std::runtime_error);
  EXPECT_THROW(resolve_model(scratch.path()), std::runtime_error);
  std::filesystem::copy(kGguf / "llama.gguf", scratch / "a.gguf");
  EXPECT_EQ(resolve_model(scratch.path()).path, scratch / "a.gguf");
  EXPECT_EQ(resolve_model(scratch / "a.gguf").source, ModelSource::kGguf);
  std::filesystem::copy(kGguf / "llama.gguf", scratch / "b.gguf");
  EXPECT_THROW(resolve_model(scratch.path()), std::runtime_error);
  std::filesystem::copy(kModels / "llama/config.json", scratch / "config.json");
  EXPECT_EQ(resolve_model(scratch.path()).source, ModelSource::kHuggingFace);
  EXPECT_THROW(resolve_model(scratch / "config.json"), std::runtime_error);
}

TEST(LoadModel, MiniMindsWeightsSayWhetherItNormalisesQueriesAndKeys) {
  for (const char* name : {"llama", "qwen3"}) {
    const ScratchFolder scratch;
    std::ofstream(scratch / "config.json") << config_text({{"model_type", "minimind"}}, name);
    std::filesystem::copy(kModels / name / "model.safetensors", scratch / "model.safetensors");
    const LoadedModel model = load_model(scratch.path(), at::kFloat);
    EXPECT_EQ(model.config.family, "minimind");
    EXPECT_EQ(model.config.qk_norm, std::string(name) == "qwen3");
  }
}

class AlteredModel {
 public:
  explicit AlteredModel(const std::string& name) {
    std::filesystem::copy(kModels / name / "config.json", scratch_ / "config.json");
    state_ = load_model(kModels / name, at::kFloat).weights;
  }
  StateDict& state() { return state_; }
  std::string error() {
    save_safetensors(real_disk(), scratch_ / "model.safetensors", state_);
    try {
      load_model(scratch_.path(), at::kFloat);
    } catch (const std::exception& e) {
      return e.what();
    }
    return "";
  }

 private:
  ScratchFolder scratch_;
  StateDict state_;
};

TEST(LoadModel, NamesTheParameterThatIsMissingUnknownOrOfAnotherShape) {
  const std::string q = "model.layers.1.self_attn.q_proj.weight";
  AlteredModel missing("llama");
  EXPECT_EQ(missing.error(), "");
  missing.state().erase(q);
  EXPECT_NE(missing.error().find("parameter \"" + q + "\" [32, 32] is missing"), std::string::npos) << missing.error();
  AlteredModel unknown("llama");
  unknown.state()["model.layers.2.input_layernorm.weight"] = at::ones({32});
  EXPECT_NE(unknown.error().find("\"model.layers.2.input_layernorm.weight\" [32] has no place"), std::string::npos);
  AlteredModel shape("llama");
  shape.state()[q] = at::ones({32, 33});
  EXPECT_NE(shape.error().find("\"" + q + "\" is [32, 33], expected [32, 32]"), std::string::npos) << shape.error();
  AlteredModel integers("llama");
  integers.state()[q] = at::ones({32, 32}, at::kInt);
  EXPECT_NE(integers.error().find("is not floating-point"), std::string::npos);
}

TEST(LoadModel, IgnoresFrequenciesAndAnEqualTiedCopyButNoOther) {
  AlteredModel model("qwen2");
  model.state()["model.layers.0.self_attn.rotary_emb.inv_freq"] = at::ones({4});
  EXPECT_EQ(model.error(), "");
  model.state()["lm_head.weight"] = model.state().at("model.embed_tokens.weight").clone();
  EXPECT_EQ(model.error(), "");
  model.state()["lm_head.weight"][3][3] += 1;
  EXPECT_NE(model.error().find("but they differ"), std::string::npos);
}

TEST(SaveModel, GivesBackWhatWasSaved) {
  for (const char* name : {"llama", "qwen2", "qwen3", "llama_bias", "llama_score", "minimind_moe",
                           "minimind_moe_global", "minimind_moe_plain"}) {
    const ScratchFolder scratch;
    const LoadedModel model = load_model(kModels / name, at::kFloat);
    const auto folder = scratch / "out";
    bool called = false;
    save_model(real_disk(), folder, model.config, model.weights, at::kFloat, [&](const std::filesystem::path& aside) {
      write_file(real_disk(), aside / "tokenizer.json", "{}");
      called = true;
    });
    EXPECT_TRUE(called);
    EXPECT_TRUE(std::filesystem::exists(folder / "tokenizer.json"));
    const LoadedModel back = load_model(folder, at::kFloat);
    EXPECT_EQ(format_hf_config(back.config, at::kFloat, false), format_hf_config(model.config, at::kFloat, false));
    ASSERT_EQ(back.weights.size(), model.weights.size());
    for (const auto& [key, tensor] : model.weights) EXPECT_TRUE(at::equal(back.weights.at(key), tensor)) << key;
    EXPECT_EQ(real_disk().list(scratch.path()), std::vector<std::string>{"out"});
  }
}

TEST(SaveModel, LeavesTheOldFolderWhenItFails) {
  const ScratchFolder scratch;
  const LoadedModel a = load_model(kModels / "llama", at::kFloat), b = load_model(kModels / "qwen2", at::kFloat);
  save_model(real_disk(), scratch / "out", a.config, a.weights, at::kFloat, {});
  const auto fail = [](const std::filesystem::path&) { throw std::runtime_error("no tokenizer"); };
  EXPECT_THROW(save_model(real_disk(), scratch / "out", b.config, b.weights, at::kFloat, fail), std::runtime_error);
  EXPECT_EQ(load_config(scratch / "out").family, "llama");
  EXPECT_EQ(real_disk().list(scratch.path()), std::vector<std::string>{"out"});
  save_model(real_disk(), scratch / "out", b.config, b.weights, at::kFloat, {});
  EXPECT_EQ(load_config(scratch / "out").family, "qwen2");
  StateDict part = a.weights;
  part.erase("lm_head.weight");
  EXPECT_THROW(save_model(real_disk(), scratch / "out", a.config, part, at::kFloat, {}), std::runtime_error);
}

TEST(SaveModel, ReplacesAModelAndNothingElse) {
  const ScratchFolder scratch;
  const auto out = scratch / "out";
  const LoadedModel model = load_model(kModels / "llama", at::kFloat);
  const auto tokenizer = [](const std::filesystem::path& aside) {
    write_file(real_disk(), aside / "vocab.json", "{}");
  };
  const auto save = [&](uint64_t max_shard_bytes) -> std::string {
    try {
      save_model(real_disk(), out, model.config, model.weights, at::kFloat, tokenizer, max_shard_bytes);
    } catch (const std::exception& e) {
      return e.what();
    }
    return "";
  };
  std::filesystem::create_directory(out);
  EXPECT_EQ(save(20'000), "");  // shards and their index
  EXPECT_EQ(save(UINT64_MAX), "");
  const std::string expected = "; expected a new folder or one with a model";
  for (const char* name : {"notes.txt", "io.safetensors", "model.gguf", "README.md"}) {
    write_file(real_disk(), out / name, "mine");
    EXPECT_EQ(save(UINT64_MAX), out.string() + " holds " + name + ", which is no part of a model" + expected);
    EXPECT_EQ(read_file(real_disk(), out / name), "mine");
    real_disk().remove_all(out / name);
  }
  real_disk().create_dirs(out / "model.safetensors.d");
  EXPECT_NE(save(UINT64_MAX).find("holds model.safetensors.d, which"), std::string::npos);
  real_disk().remove_all(out / "model.safetensors.d");
  for (const char* suffix : {".tmp", ".old"}) {  // what a crash leaves is removed, what somebody named so is not
    const std::filesystem::path beside = out.string() + suffix;
    std::filesystem::copy(out, beside);
    write_file(real_disk(), beside / "notes.txt", "mine");
    EXPECT_NE(save(UINT64_MAX).find(beside.string() + " holds notes.txt"), std::string::npos);
    real_disk().remove_all(beside / "notes.txt");
    EXPECT_EQ(save(UINT64_MAX), "");
    real_disk().remove_all(beside);
  }
  real_disk().remove_all(out);
  write_file(real_disk(), out, "a file");
  EXPECT_EQ(save(UINT64_MAX), out.string() + " is no folder" + expected);
  EXPECT_EQ(read_file(real_disk(), out), "a file");
}

TEST(SaveModel, MiniMindIsWrittenAsTheArchitectureThatItIs) {
  DecoderConfig c = load_config(kModels / "llama");
  c.family = "minimind";
  EXPECT_EQ(parse_json(format_hf_config(c, at::kFloat, false), "x")["model_type"], "llama");
  c.qk_norm = true;
  EXPECT_EQ(parse_json(format_hf_config(c, at::kFloat, false), "x")["model_type"], "qwen3");
  c.mlp_bias = true;
  EXPECT_THROW(format_hf_config(c, at::kFloat, false), std::invalid_argument);
}

// ---- adapters -------------------------------------------------------------------------------------------------------

Adapter sample_adapter() {
  at::manual_seed(4);
  Adapter adapter;
  adapter.lora.rank = 4;
  adapter.lora.alpha = 8;
  adapter.lora.target_modules = {"q_proj", "down_proj"};
  adapter.base = "models/base";
  const std::string layer = "base_model.model.model.layers.0.";
  adapter.weights[layer + "self_attn.q_proj.lora_A.weight"] = at::randn({4, 32});
  adapter.weights[layer + "self_attn.q_proj.lora_B.weight"] = at::randn({32, 4});
  adapter.weights[layer + "mlp.down_proj.lora_A.weight"] = at::randn({4, 48});
  adapter.weights[layer + "mlp.down_proj.lora_B.weight"] = at::randn({32, 4});
  return adapter;
}

TEST(Adapter, GivesBackWhatWasSaved) {
  const ScratchFolder scratch;
  const Adapter adapter = sample_adapter();
  save_adapter(real_disk(), scratch / "a", adapter, at::kFloat);
  const Adapter back = load_adapter(scratch / "a", at::kFloat);
  EXPECT_EQ(back.lora.rank, 4);
  EXPECT_EQ(back.lora.alpha, 8.0);
  EXPECT_EQ(back.lora.target_modules, adapter.lora.target_modules);
  EXPECT_EQ(back.base, "models/base");
  ASSERT_EQ(back.weights.size(), 4u);
  for (const auto& [name, tensor] : adapter.weights) EXPECT_TRUE(at::equal(back.weights.at(name), tensor));
}

TEST(Adapter, ReplacesAnAdapterAndNothingElse) {
  const ScratchFolder scratch;
  save_adapter(real_disk(), scratch / "a", sample_adapter(), at::kFloat);
  save_adapter(real_disk(), scratch / "a", sample_adapter(), at::kFloat);
  write_file(real_disk(), scratch / "a/notes.txt", "mine");
  EXPECT_THROW(save_adapter(real_disk(), scratch / "a", sample_adapter(), at::kFloat), std::runtime_error);
  EXPECT_EQ(read_file(real_disk(), scratch / "a/notes.txt"), "mine");
}

TEST(Adapter, RefusesWhatIsNoPlainLora) {
  const ScratchFolder scratch;
  save_adapter(real_disk(), scratch / "a", sample_adapter(), at::kFloat);
  const auto error = [&](const Json& changes) {
    Json json = parse_json_file(scratch / "a/adapter_config.json");
    const Json before = json;
    json.merge_patch(changes);
    write_file(real_disk(), scratch / "a/adapter_config.json", json.dump());
    std::string message;
    try {
      load_adapter(scratch / "a", at::kFloat);
    } catch (const std::exception& e) {
      message = e.what();
    }
    write_file(real_disk(), scratch / "a/adapter_config.json", before.dump());
    return message;
  };
  EXPECT_EQ(error(Json::object()), "");
  EXPECT_NE(error({{"use_dora", true}}).find("use_dora"), std::string::npos);
  EXPECT_NE(error({{"bias", "all"}}).find("bias"), std::string::npos);
  EXPECT_NE(error({{"rank_pattern", {{"q_proj", 8}}}}).find("rank_pattern"), std::string::npos);
  EXPECT_NE(error({{"peft_type", "IA3"}}).find("peft_type"), std::string::npos);
  EXPECT_NE(error({{"r", 0}}).find("r: expected"), std::string::npos);
  EXPECT_NE(error({{"r", 8}}).find("expected rank 8"), std::string::npos);
  EXPECT_NE(error({{"lora_alpha", "x"}}).find("lora_alpha"), std::string::npos);
  EXPECT_NE(error({{"target_modules", {"embed_tokens"}}}).find("target_modules"), std::string::npos);
  EXPECT_NE(error({{"target_modules", {"q_proj"}}}).find("no LoRA matrix of a target module"), std::string::npos);
  Adapter half = sample_adapter();
  half.weights.erase(half.weights.begin());
  EXPECT_THROW(save_adapter(real_disk(), scratch / "b", half, at::kFloat), std::runtime_error);
}

// ---- for open_in_transformers.py
// -------------------------------------------------------------------------------------

// Writes every tiny model anew, each with the io.safetensors that its original came with, into the folder that the
// environment names; the Python test opens them with the real library.
TEST(OpenInTransformers, FoldersAreWritten) {
  const char* out = std::getenv("TROUPE_OPEN_IN_TRANSFORMERS_FOLDER");
  if (out == nullptr) GTEST_SKIP() << "TROUPE_OPEN_IN_TRANSFORMERS_FOLDER is not set";
  const std::filesystem::path root = out;
  std::filesystem::remove_all(root);
  real_disk().create_dirs(root);
  for (const auto& folder : std::filesystem::directory_iterator(kModels)) {
    const std::string name = folder.path().filename();
    const LoadedModel model = load_model(folder.path(), at::kFloat);
    if (model.config.moe.experts > 0) continue;  // transformers knows no MiniMind without MiniMind's own code
    // Small shards for one of them, the precision it had for another.
    const auto dtype = name == "llama_sharded_bf16" ? at::kBFloat16 : at::kFloat;
    save_model(
        real_disk(), root / name, model.config, model.weights, dtype,
        [&](const std::filesystem::path& aside) {
          std::filesystem::copy(folder.path() / "io.safetensors", aside / "io.safetensors");
        },
        name == "llama" ? 20'000 : UINT64_MAX);
  }
  for (const char* name : {"llama", "qwen2", "qwen3"}) {
    const LoadedModel model = load_model(kGguf / (std::string(name) + ".gguf"), at::kFloat);
    save_model(real_disk(), root / ("gguf_" + std::string(name)), model.config, model.weights, at::kFloat,
               [&](const std::filesystem::path& aside) {
                 std::filesystem::copy(kGguf / (std::string(name) + ".safetensors"), aside / "expected.safetensors");
               });
  }
  save_adapter(real_disk(), root / "adapter", sample_adapter(), at::kFloat);
}

}  // namespace
}  // namespace troupe
