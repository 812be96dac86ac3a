#include "roles/chosen_model.hpp"

#include <ATen/ATen.h>

#include "core/io/adapter_folder.hpp"
#include "core/io/pth.hpp"
#include "core/models/merge_adapter.hpp"
#include "core/models/minimind.hpp"
#include "roles/compute.hpp"
#include "roles/model_source.hpp"

namespace troupe {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxContext = 32768;

std::string pth_files_in(const fs::path& folder) {
  std::string found;
  if (fs::is_directory(folder))
    for (const std::string& name : real_disk().list(folder))
      if (name.ends_with(".pth")) found += (found.empty() ? "" : ", ") + name;
  return folder.string() +
         (fs::is_directory(folder) ? " holds " + (found.empty() ? "no .pth file" : found) : " does not exist");
}

void require_pth(const fs::path& file, const char* chosen_by) {
  if (!fs::exists(file))
    throw std::runtime_error(file.string() + ": no such weights (chosen by " + chosen_by + "); " +
                             pth_files_in(file.parent_path()));
}

// Strict: every parameter of the shape that the flags give, and none besides. A stored copy of the tied matrix goes.
void check_native(const DecoderConfig& config, StateDict& weights, const fs::path& file) {
  const auto head = weights.find("lm_head.weight");
  if (head != weights.end()) {
    const auto embedding = weights.find("model.embed_tokens.weight");
    if (embedding == weights.end() || !at::equal(head->second, embedding->second))
      throw std::runtime_error(file.string() + ": \"lm_head.weight\" differs from \"model.embed_tokens.weight\", " +
                               "MiniMind ties them");
    weights.erase(head);
  }
  const auto shapes = parameter_shapes(config);
  const std::string flags = "; --hidden_size " + std::to_string(config.hidden_size) + " --num_hidden_layers " +
                            std::to_string(config.num_layers) + " --use_moe " + (config.moe.experts > 0 ? "1" : "0") +
                            " do not fit this file";
  for (const auto& [name, shape] : shapes) {
    const auto found = weights.find(name);
    if (found == weights.end()) throw std::runtime_error(file.string() + ": \"" + name + "\" is missing" + flags);
    if (found->second.sizes() != at::IntArrayRef(shape))
      throw std::runtime_error(file.string() + ": \"" + name + "\" is " + c10::str(found->second.sizes()) +
                               ", expected " + c10::str(at::IntArrayRef(shape)) + flags);
  }
  for (const auto& [name, tensor] : weights)
    if (!shapes.contains(name))
      throw std::runtime_error(file.string() + ": \"" + name + "\" has no place in the model" + flags);
}

ChosenModel load_native(const ModelChoice& choice, at::ScalarType dtype) {
  const std::string name = choice.weight + "_" + std::to_string(choice.hidden_size);
  const fs::path file = choice.save_dir / (name + (choice.use_moe ? "_moe.pth" : ".pth"));
  require_pth(file, "--save_dir, --weight, --hidden_size and --use_moe");
  ChosenModel model{.config = minimind_config(choice.hidden_size, choice.num_hidden_layers, choice.use_moe),
                    .weights = read_pth(file, dtype),
                    .tokenizer = Tokenizer::from_folder(choice.load_from),
                    .origin = file,
                    .native = true};
  // MiniMind's own vocabulary has 6400 tokens, another's as many as its file has rows.
  if (const auto embedding = model.weights.find("model.embed_tokens.weight");
      embedding != model.weights.end() && embedding->second.dim() == 2)
    model.config.vocab_size = embedding->second.size(0);
  if (model.tokenizer.vocab_size() > model.config.vocab_size)
    throw std::runtime_error(file.string() + ": knows " + std::to_string(model.config.vocab_size) +
                             " tokens, the tokenizer in " + choice.load_from.string() + " has " +
                             std::to_string(model.tokenizer.vocab_size()));
  check_native(model.config, model.weights, file);
  return model;
}

bool holds_tokenizer_alone(const fs::path& path) {
  return fs::exists(path / "tokenizer.json") && !fs::exists(path / "config.json");
}

void add_lora(ChosenModel& model, const ModelChoice& choice) {
  if (fs::is_directory(choice.lora_weight)) {
    const Adapter adapter = load_adapter(choice.lora_weight, at::kFloat);
    const double scale = adapter.lora.alpha / static_cast<double>(adapter.lora.rank);
    return merge_adapter(model.weights, adapter.weights, scale, choice.lora_weight);
  }
  fs::path file = choice.lora_weight;
  if (file.extension() != ".pth") {
    const fs::path stem =
        choice.save_dir / "lora" / (choice.lora_weight + "_" + std::to_string(model.config.hidden_size));
    file = stem.string() + ".pth";
    if (model.config.moe.experts > 0 && !fs::exists(file)) file = stem.string() + "_moe.pth";
  }
  require_pth(file, "--lora_weight");
  const StateDict adapter = read_pth(file, at::kFloat);
  double scale = 1;
  for (const auto& [name, tensor] : adapter)
    if (name.ends_with(".lora_A") && tensor.dim() == 2) scale = kForkLoraAlpha / static_cast<double>(tensor.size(1));
  merge_adapter(model.weights, adapter, scale, file.string());
}

// What MiniMind was stretched with: 16 times the 2048 positions it saw.
void stretch_positions(DecoderConfig& config, const fs::path& origin) {
  if (config.rope.type != "default")
    throw std::runtime_error(origin.string() + ": its rotary positions are scaled already (" + config.rope.type + ")");
  config.rope = minimind_rope(config.rope.theta, true);
  config.max_positions = std::max(config.max_positions, minimind_config(512, 1, false).max_positions);
}

}  // namespace

int64_t ChosenModel::parameters() const {
  int64_t n = 0;
  for (const auto& [name, tensor] : weights) n += tensor.numel();
  return n;
}

ChosenModel choose_model(const ModelChoice& choice, at::ScalarType dtype) {
  ChosenModel model = [&] {
    if (holds_tokenizer_alone(choice.load_from)) return load_native(choice, dtype);
    LoadedModel loaded = load_model(choice.load_from, dtype);
    return ChosenModel{.config = std::move(loaded.config),
                       .weights = std::move(loaded.weights),
                       .tokenizer = load_tokenizer(choice.load_from),
                       .origin = std::move(loaded.origin)};
  }();
  if (!choice.lora_weight.empty() && choice.lora_weight != "None") add_lora(model, choice);
  if (choice.inference_rope_scaling) stretch_positions(model.config, model.origin);
  return model;
}

at::ScalarType compute_dtype(const ComputeChoice& compute) {
  if (compute.dtype == "bf16") return at::kBFloat16;
  if (compute.dtype == "f32") return at::kFloat;
  throw std::invalid_argument("--dtype: '" + compute.dtype + "', expected bf16 or f32");
}

int64_t context_length(const DecoderConfig& config) {
  return std::min(config.max_positions, kMaxContext);
}

std::unique_ptr<Engine> make_engine(const ChosenModel& model, const ComputeChoice& compute, TextDecoder decode_text) {
  const std::string wanted = compute.device != "auto" ? compute.device : at::hasCUDA() ? "cuda" : "cpu";
  const at::Device device = usable_device(wanted, "--device");
  const int64_t room = std::max<int64_t>(context_length(model.config), 4096);
  return std::make_unique<Engine>(model.config, model.weights, std::move(decode_text),
                                  EngineOptions{.dtype = compute_dtype(compute),
                                                .threads = static_cast<int>(compute.threads),
                                                .max_tokens = room,
                                                .plain_kernels = !device.is_cpu(),
                                                .device = device});
}

}  // namespace troupe
