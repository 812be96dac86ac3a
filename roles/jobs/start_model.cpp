#include "roles/jobs/start_model.hpp"

#include <stdexcept>

#include "core/io/model_folder.hpp"
#include "core/io/pth.hpp"
#include "core/models/initial_weights.hpp"
#include "core/models/minimind.hpp"
#include "roles/model_source.hpp"

namespace troupe {
namespace {

namespace fs = std::filesystem;

std::string file_stem(const std::string& weight, int64_t hidden_size, bool moe) {
  return weight + "_" + std::to_string(hidden_size) + (moe ? "_moe" : "");
}

// MiniMind's own file: every parameter by name; the tied output projection may be missing, tables may be there. The
// vocabulary is the file's.
StateDict native_weights(const fs::path& file, DecoderConfig& config) {
  const StateDict stored = read_pth(file, at::kFloat);
  if (const auto embedding = stored.find("model.embed_tokens.weight");
      embedding != stored.end() && embedding->second.dim() == 2)
    config.vocab_size = embedding->second.size(0);  // the file's own
  StateDict weights;
  for (const auto& [name, shape] : parameter_shapes(config)) {
    const auto found = stored.find(name);
    if (found == stored.end())
      throw std::runtime_error(file.string() + ": has no " + name +
                               "; does --hidden_size, --num_hidden_layers or --use_moe differ?");
    if (found->second.sizes() != at::IntArrayRef(shape))
      throw std::runtime_error(file.string() + ": " + name + " has another shape than --hidden_size " +
                               std::to_string(config.hidden_size) + " asks for");
    weights[name] = found->second;
  }
  return weights;
}

}  // namespace

bool is_model_path(const fs::path& path) {
  return fs::exists(path / "config.json") || (fs::is_regular_file(path) && path.extension() == ".gguf");
}

StartModel start_model(const JobConfig& job, const std::string& from, int64_t hidden_size, int64_t num_layers,
                       const Compat& compat) {
  if (is_model_path(from)) {
    LoadedModel model = load_model(from, at::kFloat);
    if (compat.aux_coefficient) model.config.moe.aux_coefficient = *compat.aux_coefficient;
    return {std::move(model.config), std::move(model.weights), from, from};
  }
  if (from.find('/') != std::string::npos || fs::path(from).extension() == ".gguf")
    throw std::runtime_error("--from_weight: " + from + " is neither a model folder (config.json) nor a GGUF file");
  StartModel out{.config = minimind_config(hidden_size, num_layers, job.use_moe == 1), .tokenizer = job.tokenizer};
  if (compat.aux_coefficient) out.config.moe.aux_coefficient = *compat.aux_coefficient;
  if (from == "none") {
    out.config.vocab_size = load_tokenizer(job.tokenizer).vocab_size();
    out.weights = initial_weights(out.config, static_cast<uint64_t>(job.seed));
    return out;
  }
  const std::string stem = file_stem(from, hidden_size, job.use_moe == 1), name = stem + ".pth";
  for (const fs::path& folder : {fs::path(job.save_dir), fs::path("out")}) {
    if (!fs::exists(folder / name)) continue;
    out.weights = native_weights(folder / name, out.config);
    out.origin = is_model_path(folder / stem) ? folder / stem : folder / name;
    return out;
  }
  throw std::runtime_error("--from_weight " + from + ": there is no " + name + " in " + job.save_dir +
                           (job.save_dir == "out" ? "" : " or in out") + ", and no model folder of that name");
}

std::string output_name(const std::string& weight, const DecoderConfig& config) {
  return file_stem(weight, config.hidden_size, config.moe.experts > 0);
}

}  // namespace troupe
