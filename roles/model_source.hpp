// A model path's tokenizer and its export, whatever it is: a Hugging Face folder (or one with a tokenizer alone), or a
// GGUF file.
#pragma once

#include <filesystem>
#include <functional>

#include "core/io/model_folder.hpp"
#include "core/text/tokenizer.hpp"

namespace troupe {

// Throws std::runtime_error naming the file and what is wrong with it.
Tokenizer load_tokenizer(const std::filesystem::path& model);

// Writes the tokenizer files of `model` into the folder it is called with: for save_model.
std::function<void(const std::filesystem::path&)> tokenizer_writer(const std::filesystem::path& model);

}  // namespace troupe
