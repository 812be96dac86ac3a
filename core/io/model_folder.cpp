#include "core/io/model_folder.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <optional>
#include <set>

#include "core/config.hpp"
#include "core/io/gguf_model.hpp"
#include "core/io/safetensors.hpp"

namespace troupe {
namespace {

using Shapes = std::map<std::string, std::vector<int64_t>>;

std::string shape_text(c10::IntArrayRef shape) {
  std::string text = "[";
  for (const int64_t n : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(n);
  return text + "]";
}

bool is_ignorable_buffer(std::string_view name) {
  return name.ends_with(".rotary_emb.inv_freq");
}

// What a model file holds, against what its configuration asks for. `found` is what is there; a score head may stand
// for the output head.
void check_parameters(const DecoderConfig& config, const Shapes& found, const std::string& origin) {
  Shapes expected = parameter_shapes(config);
  if (found.contains("score.weight")) {
    expected["score.weight"] = {1, config.hidden_size};
    if (!found.contains("lm_head.weight")) expected.erase("lm_head.weight");
  }
  for (const auto& [name, shape] : expected) {
    const auto it = found.find(name);
    if (it == found.end())
      throw std::runtime_error(origin + ": parameter \"" + name + "\" " + shape_text(shape) + " is missing");
    if (it->second != shape)
      throw std::runtime_error(origin + ": parameter \"" + name + "\" is " + shape_text(it->second) + ", expected " +
                               shape_text(shape));
  }
  for (const auto& [name, shape] : found)
    if (!expected.contains(name))
      throw std::runtime_error(origin + ": parameter \"" + name + "\" " + shape_text(shape) + " has no place in a " +
                               config.family + " model of this configuration");
}

std::string read_if_there(const std::filesystem::path& path) {
  return real_disk().exists(path) ? read_file(real_disk(), path) : "";
}

DecoderConfig hf_config(const std::filesystem::path& folder) {
  DecoderConfig config =
      parse_hf_config(read_file(real_disk(), folder / "config.json"), read_if_there(folder / "generation_config.json"),
                      (folder / "config.json").string());
  // MiniMind's configuration does not say whether its version normalises queries and keys; its weights do.
  if (config.family == "minimind")
    config.qk_norm = SafetensorsFolder(folder).tensors().contains("model.layers.0.self_attn.q_norm.weight");
  return config;
}

// With tied embeddings some writers store the matrix twice. Then the copies must be equal: which one counts is not ours
// to guess.
void check_tied_copy(const SafetensorsFolder& files, const std::string& origin) {
  if (!at::equal(files.read("lm_head.weight"), files.read("model.embed_tokens.weight")))
    throw std::runtime_error(origin +
                             ": the configuration ties lm_head.weight to model.embed_tokens.weight, but they differ");
}

LoadedModel load_hf(const std::filesystem::path& folder, at::ScalarType dtype) {
  const SafetensorsFolder files(folder);
  LoadedModel model{hf_config(folder), {}, folder, ModelSource::kHuggingFace};
  Shapes found;
  for (const auto& [name, file] : files.tensors())
    if (!is_ignorable_buffer(name)) found[name] = files.entry(name).shape;
  if (model.config.tie_embeddings && found.contains("lm_head.weight")) {
    check_tied_copy(files, folder.string());
    found.erase("lm_head.weight");
  }
  check_parameters(model.config, found, folder.string());
  std::vector<std::pair<const std::string*, at::Tensor*>> items;
  for (const auto& [name, shape] : found) items.emplace_back(&name, &model.weights[name]);
  at::parallel_for(0, static_cast<int64_t>(items.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto& [name, out] = items[static_cast<std::size_t>(i)];
      *out = files.read(*name, dtype);
      if (out->scalar_type() != dtype)
        throw std::runtime_error(folder.string() + ": parameter \"" + *name + "\" is not floating-point");
    }
  });
  return model;
}

LoadedModel load_gguf(const std::filesystem::path& path, at::ScalarType dtype) {
  const GgufFile file(path);
  LoadedModel model{gguf_config(file), {}, path, ModelSource::kGguf};
  Shapes found;
  for (const auto& [name, parameter] : gguf_parameters(file)) found[name] = parameter.shape;
  check_parameters(model.config, found, path.string());
  model.weights = gguf_weights(file, model.config, dtype);
  return model;
}

constexpr const char* kTokenizerFiles[] = {
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt",     "tokenizer.model",       "chat_template.jinja"};

// What save_model and save_adapter write: config.json and its like, shards with their index, the tokenizer.
bool is_part_of_model(const std::string& name) {
  if (name == "config.json" || name == "generation_config.json" || name == "adapter_config.json") return true;
  if (name.starts_with("model") || name.starts_with("adapter_model"))
    return name.find(".safetensors") != std::string::npos;
  return std::ranges::find(kTokenizerFiles, name) != std::end(kTokenizerFiles);
}

std::string generation_config(const DecoderConfig& config) {
  OrderedJson json;
  json["_from_model_config"] = true;
  if (config.bos_token >= 0) json["bos_token_id"] = config.bos_token;
  if (config.eos_tokens.size() == 1)
    json["eos_token_id"] = config.eos_tokens[0];
  else if (!config.eos_tokens.empty())
    json["eos_token_id"] = config.eos_tokens;
  if (config.pad_token >= 0) json["pad_token_id"] = config.pad_token;
  return json.dump(2) + "\n";
}

}  // namespace

ModelPath resolve_model(const std::filesystem::path& path) {
  if (!real_disk().exists(path)) throw std::runtime_error(path.string() + ": no such model folder or .gguf file");
  if (!std::filesystem::is_directory(path)) {
    if (path.extension() == ".gguf") return {path, ModelSource::kGguf};
    throw std::runtime_error(path.string() + ": expected a Hugging Face folder or a .gguf file");
  }
  if (real_disk().exists(path / "config.json")) return {path, ModelSource::kHuggingFace};
  std::vector<std::string> found;
  for (const std::string& name : real_disk().list(path))
    if (name.ends_with(".gguf")) found.push_back(name);
  if (found.size() == 1) return {path / found[0], ModelSource::kGguf};
  throw std::runtime_error(path.string() + ": holds neither config.json nor exactly one .gguf file (" +
                           std::to_string(found.size()) + " found)");
}

LoadedModel load_model(const std::filesystem::path& path, at::ScalarType dtype) {
  if (dtype != at::kFloat && dtype != at::kBFloat16 && dtype != at::kHalf)
    throw std::invalid_argument(std::string("load_model: weights in ") + c10::toString(dtype) + " are not supported");
  const ModelPath model = resolve_model(path);
  return model.source == ModelSource::kGguf ? load_gguf(model.path, dtype) : load_hf(model.path, dtype);
}

DecoderConfig load_config(const std::filesystem::path& path) {
  const ModelPath model = resolve_model(path);
  if (model.source == ModelSource::kGguf) return gguf_config(GgufFile(model.path));
  return hf_config(model.path);
}

void require_replaceable(const std::filesystem::path& folder) {
  const std::filesystem::path clean = folder.has_filename() ? folder : folder.parent_path();
  const std::string expected = "; expected a new folder or one with a model";
  for (const char* suffix : {"", ".tmp", ".old"}) {  // what write_folder_atomically removes
    const std::filesystem::path path = clean.string() + suffix;
    if (!real_disk().exists(path)) continue;
    if (!std::filesystem::is_directory(path)) throw std::runtime_error(path.string() + " is no folder" + expected);
    for (const std::string& name : real_disk().list(path))
      if (!std::filesystem::is_regular_file(path / name) || !is_part_of_model(name))
        throw std::runtime_error(path.string() + " holds " + name + ", which is no part of a model" + expected);
  }
}

void save_model(Disk& disk, const std::filesystem::path& folder, const DecoderConfig& config, const StateDict& weights,
                at::ScalarType dtype, const std::function<void(const std::filesystem::path&)>& write_tokenizer,
                uint64_t max_shard_bytes) {
  Shapes found;
  for (const auto& [name, tensor] : weights) found[name] = tensor.sizes().vec();
  check_parameters(config, found, "save_model " + folder.string());
  require_replaceable(folder);
  StateDict stored = weights;
  const bool classifier = stored.contains("score.weight");
  if (classifier) stored.erase("lm_head.weight");  // the classifier's class has no output head
  write_folder_atomically(disk, folder, [&](const std::filesystem::path& aside) {
    write_file(disk, aside / "config.json", format_hf_config(config, dtype, classifier));
    if (!classifier) write_file(disk, aside / "generation_config.json", generation_config(config));
    save_sharded(disk, aside, "model", stored, {.dtype = dtype}, max_shard_bytes);
    if (write_tokenizer) write_tokenizer(aside);
  });
}

}  // namespace troupe
