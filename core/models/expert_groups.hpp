// Which experts a token goes to, and the rows of each expert one after another, so that an expert is a matrix product
// over a block of rows. Shared by training and generation; plain loops, no tensors, no threads.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/models/config.hpp"

namespace troupe {

// Throws std::invalid_argument naming the field unless 0 <= experts, 1 <= per_token <= experts, 0 <= shared_experts.
void check_experts(const MoeConfig& config);

// The best `per_token` of probabilities [experts], descending, equal ones in their order, and what their outputs are
// multiplied with: the probabilities, or with `normalise` these over their sum. A function of the one row.
void choose_experts(const MoeConfig& config, const float* probabilities, int32_t* chosen, float* weights);

// A block of rows for each expert, then one for each shared expert with all tokens; within a block rows are in the
// order of the tokens. S tokens, K = per_token; R = S * (K + shared_experts) rows in all, besides those that fill up an
// expert's block to a multiple of `alignment`.
struct ExpertGroups {
  std::vector<int64_t> bounds;  // [experts + shared_experts + 1]: block j is rows bounds[j] .. bounds[j + 1]
  std::vector<int64_t> token;   // [R]: whose row it is, -1: nobody's
  std::vector<int64_t> rows;    // [S * (K + shared_experts)]: where a token's rows are, in the order of its choices,
                                // then the shared experts'

  // chosen [S * K]. A stable counting sort.
  void assign(const MoeConfig& config, std::span<const int32_t> chosen, int64_t alignment = 1);
};

}  // namespace troupe
