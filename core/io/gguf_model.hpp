// A GGUF file as a model under Hugging Face names.
#pragma once

#include "core/io/gguf.hpp"
#include "core/models/config.hpp"
#include "core/models/state_dict.hpp"

namespace troupe {

// Architectures llama, qwen2, qwen3. What the metadata cannot say, the tensors do: no output.weight means tied
// embeddings, a bias means biases; llama-3 scaling is recovered from the frequencies in rope_freqs.weight.
DecoderConfig gguf_config(const GgufFile& file);

// The tensors by Hugging Face name. One without such a name throws.
struct GgufParameter {
  std::string name;  // in the file
  std::vector<int64_t> shape;
};
std::map<std::string, GgufParameter> gguf_parameters(const GgufFile& file);

// All weights, dequantized, converted to `dtype`; the row permutation that GGUF applies to llama's queries and keys is
// undone.
StateDict gguf_weights(const GgufFile& file, const DecoderConfig& config, at::ScalarType dtype);

}  // namespace troupe
