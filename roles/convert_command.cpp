// A model in another form: Hugging Face folders and MiniMind's .pth both ways, GGUF read, adapters merged in.
#include <ATen/ATen.h>

#include <iostream>

#include "core/config.hpp"
#include "core/io/pth.hpp"
#include "core/models/minimind.hpp"
#include "roles/chosen_model.hpp"

namespace troupe {
namespace {

namespace fs = std::filesystem;

at::ScalarType stored_dtype(const std::string& name) {
  if (name == "f16") return at::kHalf;
  if (name == "bf16") return at::kBFloat16;
  if (name == "f32") return at::kFloat;
  throw std::invalid_argument("--dtype: '" + name + "', expected f16, bf16 or f32");
}

void check_range(const ChosenModel& model, at::ScalarType dtype) {
  if (dtype != at::kHalf) return;
  for (const auto& [name, tensor] : model.weights)
    if (const double largest = tensor.abs().max().item<double>(); largest > 65504)
      throw std::runtime_error(model.origin.string() + ": \"" + name + "\" holds " + std::to_string(largest) +
                               ", more than float16 can; --dtype bf16 keeps it");
}

// A .pth says nothing of its model but names and shapes: it must be one of MiniMind's.
void check_is_minimind(const ChosenModel& model, const fs::path& to) {
  const DecoderConfig& c = model.config;
  const auto refuse = [&](const std::string& why) {
    throw std::runtime_error(model.origin.string() + ": " + why + "; " + to.filename().string() +
                             " would not be read as this model");
  };
  if (c.rope.type != "default")
    refuse("a .pth can't say that rotary positions are scaled; leave --inference-rope-scaling for those who load it");
  if (c.hidden_size % 16 != 0)
    refuse("hidden_size is " + std::to_string(c.hidden_size) + ", MiniMind's is a multiple of 16");
  DecoderConfig mini = minimind_config(c.hidden_size, c.num_layers, c.moe.experts > 0);
  mini.vocab_size = c.vocab_size;  // whoever reads the file sees its rows
  const auto compare = [&](const char* what, auto found, auto expected) {
    if (found == expected) return;
    std::ostringstream text;
    text << what << " is " << found << ", MiniMind's is " << expected;
    refuse(text.str());
  };
  compare("intermediate_size", c.intermediate_size, mini.intermediate_size);
  compare("num_attention_heads", c.num_heads, mini.num_heads);
  compare("num_key_value_heads", c.num_kv_heads, mini.num_kv_heads);
  compare("head_dim", c.head_dim, mini.head_dim);
  compare("rms_norm_eps", c.rms_norm_eps, mini.rms_norm_eps);
  compare("rope_theta", c.rope.theta, mini.rope.theta);
  compare("tie_word_embeddings", c.tie_embeddings, mini.tie_embeddings);
  if (parameter_shapes(c) != parameter_shapes(mini)) refuse("it has biases, norms or experts that MiniMind has not");
}

void write_native(const ChosenModel& model, const fs::path& to, at::ScalarType dtype) {
  check_is_minimind(model, to);
  StateDict weights;
  for (const auto& [name, tensor] : model.weights) weights[name] = tensor.to(dtype);
  weights["lm_head.weight"] = weights.at("model.embed_tokens.weight");  // MiniMind's files hold the tied matrix twice
  if (to.has_parent_path()) real_disk().create_dirs(to.parent_path());
  save_pth(real_disk(), to, weights);
}

// Without "tokenizer_class" AutoTokenizer goes by the model's type, and takes what is not a Llama vocabulary for one.
void name_tokenizer_class(const fs::path& folder) {
  const fs::path file = folder / "tokenizer_config.json";
  OrderedJson config = OrderedJson::object();
  if (fs::exists(file)) config = OrderedJson::parse(read_file(real_disk(), file));
  if (config.contains("tokenizer_class")) return;
  config["tokenizer_class"] = "PreTrainedTokenizerFast";
  write_file(real_disk(), file, config.dump(2) + "\n");
}

void write_folder(const ChosenModel& model, const fs::path& to, at::ScalarType dtype) {
  save_model(real_disk(), to, model.config, model.weights, dtype, [&](const fs::path& aside) {
    model.tokenizer.save(aside);
    name_tokenizer_class(aside);
  });
}

// A rounded or merged copy in place of its source could not be made again.
void refuse_own_source(const ConvertOptions& options, const fs::path& origin) {
  for (const fs::path& source : {origin, options.model.load_from, fs::path(options.model.lora_weight)})
    if (fs::exists(options.to) && fs::exists(source) && fs::equivalent(options.to, source))
      throw std::invalid_argument("--to " + options.to.string() + ": is what is converted; expected another place");
}

}  // namespace

int convert_command(const ConvertOptions& options) {
  const bool to_native = options.to.extension() == ".pth";
  if (!options.dtype.empty()) stored_dtype(options.dtype);  // a wrong name is refused before the model is read
  if (!to_native) require_replaceable(options.to);
  const ChosenModel model = choose_model(options.model, at::kFloat);
  refuse_own_source(options, model.origin);
  const std::string name = !options.dtype.empty() ? options.dtype : to_native || model.native ? "f16" : "bf16";
  const at::ScalarType dtype = stored_dtype(name);
  check_range(model, dtype);
  if (to_native)
    write_native(model, options.to, dtype);
  else
    write_folder(model, options.to, dtype);
  std::cout << model.origin.string() << " -> " << options.to.string() << ", " << model.parameters() << " parameters in "
            << name << '\n';
  return 0;
}

}  // namespace troupe
