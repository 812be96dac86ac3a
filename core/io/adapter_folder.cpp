#include "core/io/adapter_folder.hpp"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/config.hpp"
#include "core/io/model_folder.hpp"
#include "core/io/safetensors.hpp"

namespace troupe {
namespace {

// Settings that change what an adapter computes; only their "off" (null, false, "none", empty) is supported.
constexpr const char* kMustBeOff[] = {"use_dora",
                                      "use_rslora",
                                      "bias",
                                      "rank_pattern",
                                      "alpha_pattern",
                                      "modules_to_save",
                                      "layers_to_transform",
                                      "fan_in_fan_out",
                                      "layer_replication",
                                      "exclude_modules",
                                      "target_parameters",
                                      "lora_bias",
                                      "trainable_token_indices",
                                      "use_qalora",
                                      "alora_invocation_tokens"};

bool is_off(const Json& value) {
  return value.is_null() || value == false || value == "none" || (value.is_structured() && value.empty());
}

const std::vector<std::string>& linear_modules() {
  static const std::vector<std::string> modules = LoraConfig{}.target_modules;
  return modules;
}

Adapter parse_adapter_config(const std::filesystem::path& path) {
  const Json json = parse_json_file(path);
  const JsonPath where(path.string());
  const auto get = [&](const char* key) { return json.contains(key) ? json[key] : Json(); };
  const auto refuse = [&](const char* key, const std::string& reason) {
    throw std::runtime_error(where.key(key).prefix() + reason);
  };
  if (!json.is_object()) throw std::runtime_error(path.string() + ": expected an object");
  if (get("peft_type") != "LORA") refuse("peft_type", "expected \"LORA\", found " + detail::found(get("peft_type")));
  for (const char* key : kMustBeOff)
    if (!is_off(get(key))) refuse(key, "is not supported; found " + detail::found(get(key)));
  Adapter adapter;
  if (!get("r").is_number_integer() || get("r") < 1 || get("r") > 65536)
    refuse("r", "expected an integer from 1 to 65536, found " + detail::found(get("r")));
  if (!get("lora_alpha").is_number())
    refuse("lora_alpha", "expected a number, found " + detail::found(get("lora_alpha")));
  adapter.lora.rank = get("r").get<int64_t>();
  adapter.lora.alpha = get("lora_alpha").get<double>();
  const Json targets = get("target_modules");
  if (targets == "all-linear") {
    adapter.lora.target_modules = linear_modules();
  } else {
    if (!targets.is_array() || targets.empty()) refuse("target_modules", "expected a list of names");
    adapter.lora.target_modules.clear();
    for (const Json& name : targets) {
      const auto& known = linear_modules();
      if (!name.is_string() || std::find(known.begin(), known.end(), name.get<std::string>()) == known.end())
        refuse("target_modules",
               detail::found(name) + " is not one of q_proj k_proj v_proj o_proj gate_proj up_proj down_proj");
      adapter.lora.target_modules.push_back(name);
    }
  }
  if (get("base_model_name_or_path").is_string()) adapter.base = get("base_model_name_or_path");
  return adapter;
}

// Names and ranks; pairs complete.
void check_adapter(const Adapter& adapter, const std::string& origin) {
  for (const auto& [name, tensor] : adapter.weights) {
    const bool a = name.ends_with(".lora_A.weight"), b = name.ends_with(".lora_B.weight");
    const std::string stem = name.substr(0, name.size() - std::string_view(".lora_A.weight").size() * (a || b));
    const std::string module = stem.substr(stem.rfind('.') + 1);
    const auto& targets = adapter.lora.target_modules;
    if (!(a || b) || !name.starts_with("base_model.model.model.layers.") ||
        std::find(targets.begin(), targets.end(), module) == targets.end())
      throw std::runtime_error(origin + ": \"" + name + "\" is no LoRA matrix of a target module");
    if (tensor.dim() != 2 || tensor.size(a ? 0 : 1) != adapter.lora.rank)
      throw std::runtime_error(origin + ": \"" + name + "\" is " + c10::str(tensor.sizes()) + ", expected rank " +
                               std::to_string(adapter.lora.rank));
    const std::string other = stem + (a ? ".lora_B.weight" : ".lora_A.weight");
    if (!adapter.weights.contains(other)) throw std::runtime_error(origin + ": \"" + other + "\" is missing");
  }
  if (adapter.weights.empty()) throw std::runtime_error(origin + ": an adapter without weights");
}

std::string format_adapter_config(const Adapter& adapter) {
  OrderedJson json;
  json["peft_type"] = "LORA";
  json["task_type"] = "CAUSAL_LM";
  json["base_model_name_or_path"] = adapter.base;
  json["r"] = adapter.lora.rank;
  const auto whole = static_cast<int64_t>(adapter.lora.alpha);
  if (static_cast<double>(whole) == adapter.lora.alpha)
    json["lora_alpha"] = whole;
  else
    json["lora_alpha"] = adapter.lora.alpha;
  json["lora_dropout"] = 0.0;
  json["target_modules"] = adapter.lora.target_modules;
  json["bias"] = "none";
  json["fan_in_fan_out"] = false;
  json["init_lora_weights"] = true;
  json["inference_mode"] = true;
  json["use_rslora"] = false;
  json["use_dora"] = false;
  json["modules_to_save"] = nullptr;
  json["rank_pattern"] = OrderedJson::object();
  json["alpha_pattern"] = OrderedJson::object();
  return json.dump(2) + "\n";
}

}  // namespace

Adapter load_adapter(const std::filesystem::path& folder, at::ScalarType dtype) {
  Adapter adapter = parse_adapter_config(folder / "adapter_config.json");
  const SafetensorsFile file(folder / "adapter_model.safetensors");
  for (const auto& [name, entry] : file.header().tensors) adapter.weights[name] = file.read(name, dtype);
  check_adapter(adapter, file.path().string());
  return adapter;
}

void save_adapter(Disk& disk, const std::filesystem::path& folder, const Adapter& adapter, at::ScalarType dtype,
                  const std::function<void(const std::filesystem::path&)>& write_tokenizer) {
  check_adapter(adapter, "save_adapter " + folder.string());
  require_replaceable(folder);
  write_folder_atomically(disk, folder, [&](const std::filesystem::path& aside) {
    write_file(disk, aside / "adapter_config.json", format_adapter_config(adapter));
    save_sharded(disk, aside, "adapter_model", adapter.weights, {.dtype = dtype}, UINT64_MAX);
    if (write_tokenizer) write_tokenizer(aside);
  });
}

}  // namespace troupe
