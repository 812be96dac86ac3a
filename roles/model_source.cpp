#include "roles/model_source.hpp"

#include "core/io/gguf.hpp"

namespace troupe {

Tokenizer load_tokenizer(const std::filesystem::path& model) {
  if (std::filesystem::exists(model / "tokenizer.json")) return Tokenizer::from_folder(model);
  const ModelPath found = resolve_model(model);
  if (found.source == ModelSource::kHuggingFace) return Tokenizer::from_folder(found.path);
  return Tokenizer::from_gguf(gguf_vocabulary(GgufFile(found.path)));
}

std::function<void(const std::filesystem::path&)> tokenizer_writer(const std::filesystem::path& model) {
  return [model](const std::filesystem::path& folder) { load_tokenizer(model).save(folder); };
}

}  // namespace troupe
