// A model's parameters by their Hugging Face names ("model.layers.0.self_attn.q_proj.weight"), shapes as transformers
// stores them (Linear weights are [out, in]). Ordered by name, so that every walk over it is the same walk.
// With tied embeddings there is no "lm_head.weight" entry. A scalar or value head is "score.weight" [1, hidden].
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>

namespace troupe {

using StateDict = std::map<std::string, at::Tensor>;

}  // namespace troupe
