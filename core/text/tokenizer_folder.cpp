// Tokenizers in Hugging Face folders: reading the files of one, writing them out again.
#include <array>
#include <fstream>
#include <sstream>

#include "core/text/json_view.hpp"
#include "core/text/tokenizer.hpp"
#include "core/text/tokenizer_parts.hpp"

namespace troupe {
namespace {

constexpr uintmax_t kMaxFileBytes = uintmax_t{256} << 20;

// What transformers reads a tokenizer from; carried along as they are.
constexpr std::array kTokenizerFiles = {
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt",     "tokenizer.model",       "chat_template.jinja",
};

using Files = std::map<std::string, std::string>;

std::string read_file(const std::filesystem::path& path) {
  if (std::filesystem::file_size(path) > kMaxFileBytes) throw std::runtime_error(path.string() + ": is too large");
  std::ifstream in(path, std::ios::binary);
  std::ostringstream bytes;
  bytes << in.rdbuf();
  if (!in) throw std::runtime_error(path.string() + ": cannot be read");
  return std::move(bytes).str();
}

void write_file(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  out.close();
  if (!out) throw std::runtime_error(path.string() + ": cannot be written");
}

nlohmann::json parse_json(const std::string& bytes, const std::string& file) {
  try {
    nlohmann::json parsed = nlohmann::json::parse(bytes);
    if (!parsed.is_object()) throw std::runtime_error(file + ": expected a JSON object");
    return parsed;
  } catch (const nlohmann::json::exception& error) {
    throw std::runtime_error(file + ": " + error.what());
  }
}

void read_role(const JsonView& config, const char* key, std::optional<std::string>& role) {
  if (role || !config.has(key)) return;
  const JsonView token = config[key];
  role = token.value().is_object() ? token["content"].string() : token.string();
}

void read_roles(const JsonView& config, TokenRoles& roles) {
  read_role(config, "bos_token", roles.bos);
  read_role(config, "eos_token", roles.eos);
  read_role(config, "pad_token", roles.pad);
  read_role(config, "unk_token", roles.unk);
}

// One template, or a list of named ones, of which transformers takes "default".
void read_template(const JsonView& config, TokenRoles& roles) {
  if (!config.has("chat_template")) return;
  const JsonView found = config["chat_template"];
  if (!found.value().is_array()) {
    roles.chat_template = found.string();
    return;
  }
  found.for_each([&](const JsonView& named) {
    if (named["name"].string() == "default") roles.chat_template = named["template"].string();
  });
}

// "eos_token_id" is one id or several.
void read_stop_ids(const JsonView& generation, TokenRoles& roles) {
  if (!generation.has("eos_token_id")) return;
  const JsonView ids = generation["eos_token_id"];
  const auto take = [&](const JsonView& id) {
    roles.stop_ids.push_back(id.index(std::numeric_limits<int32_t>::max()));
  };
  ids.value().is_array() ? ids.for_each(take) : take(ids);
}

// `folder`: where the files are, for messages.
TokenRoles read_all_roles(const std::filesystem::path& folder, const Files& files) {
  TokenRoles roles;
  roles.file = (folder / "tokenizer_config.json").string();
  for (const char* name : {"tokenizer_config.json", "special_tokens_map.json"}) {
    const auto file = files.find(name);
    if (file == files.end()) continue;
    const std::string path = (folder / name).string();
    const nlohmann::json config = parse_json(file->second, path);
    const JsonView view(config, path + ": ");
    read_roles(view, roles);
    read_template(view, roles);
  }
  if (files.contains("chat_template.jinja")) roles.chat_template = files.at("chat_template.jinja");
  const auto generation = files.find("generation_config.json");
  if (generation != files.end()) {
    const std::string path = (folder / "generation_config.json").string();
    const nlohmann::json config = parse_json(generation->second, path);
    read_stop_ids(JsonView(config, path + ": "), roles);
  }
  return roles;
}

}  // namespace

Tokenizer Tokenizer::from_folder(const std::filesystem::path& folder) {
  Files files;
  for (const char* name : kTokenizerFiles) {
    if (std::filesystem::exists(folder / name)) files.emplace(name, read_file(folder / name));
  }
  if (std::filesystem::exists(folder / "generation_config.json"))
    files.emplace("generation_config.json", read_file(folder / "generation_config.json"));
  return from_files(std::move(files), folder);
}

Tokenizer Tokenizer::from_files(std::map<std::string, std::string> files, const std::filesystem::path& folder) {
  const std::string path = (folder / "tokenizer.json").string();
  if (!files.contains("tokenizer.json")) throw std::runtime_error(path + ": does not exist");
  TokenizerDescription description = read_tokenizer_json(parse_json(files.at("tokenizer.json"), path), path);
  auto parts = std::make_shared<TokenizerParts>(std::move(description), read_all_roles(folder, files), path);
  files.erase("generation_config.json");  // the model's, not the tokenizer's
  parts->files = std::move(files);
  return Tokenizer(std::move(parts));
}

void Tokenizer::save(const std::filesystem::path& folder) const {
  std::filesystem::create_directories(folder);
  for (const auto& [name, bytes] : parts_->files) write_file(folder / name, bytes);
}

}  // namespace troupe
